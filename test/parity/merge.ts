/*
 * Models merged here, loaded in transformers, against base and adapters in PEFT: the logits of the cases of test/golden/merge, and of a
 * model and adapters that are given.
 *
 *     npm run parity:merge [-- --model DIR --adapter DIR[:SCALE] [--adapter ...]]
 *
 * A QLoRA adapter (nf4 with double quantization, as its run.json says) is compared on the base as bitsandbytes quantizes it. Without Python
 * (torch, transformers, peft) it says so and passes.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findPython, hasBitsAndBytes, modelFolder, runPython } from '../../bench/python.ts'
import { mergeOptions } from '../../src/commands/options.fixture.ts'
import { baseOfAdapter } from '../../src/runs/adapter-base.ts'
import { runMerge } from '../../src/tasks/merge.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { resultOf } from '../../src/util/task.ts'

const golden = fileURLToPath(new URL('../../../test/golden/', import.meta.url))
const script = fileURLToPath(new URL('../../../test/parity/merge.py', import.meta.url))

interface Comparison {
  readonly logits: number
  readonly difference: number
  readonly base: number
  readonly missing: readonly string[]
}

interface Compared {
  readonly title: string
  readonly model: string
  readonly adapters: Readonly<Record<string, number>>
  readonly dtype: 'f32' | 'bf16' | 'f16'
  /** What the largest logits may differ by, as a share of the largest logit. */
  readonly allowed: number
  readonly ids?: string
}

async function compare(
  python: string,
  work: string,
  { title, model, adapters, dtype, allowed, ids }: Compared,
): Promise<void> {
  const output = join(work, `${title.replaceAll(/\W+/g, '-')}-${dtype}`)
  const adapter = Object.entries(adapters).map(([folder, scale]) => `${folder}:${scale}`)
  await resultOf(runMerge(mergeOptions.parse({ model, adapter, output, dtype }) as never, { cancelled: () => false }))
  const [first = ''] = Object.keys(adapters)
  const nf4 = (await baseOfAdapter(first))?.quantization !== undefined
  if (nf4 && !hasBitsAndBytes(python)) return
  const found = await runPython<Comparison>(python, script, [
    '--merged',
    output,
    '--base',
    model,
    ...adapter.flatMap((one) => ['--adapter', one]),
    ...(ids === undefined ? [] : ['--ids', ids]),
    ...(nf4 ? ['--nf4'] : []),
  ])
  await rm(output, { recursive: true })
  const limit = allowed * found.logits
  const passed = found.difference < limit && found.missing.length === 0
  const figures = [found.difference, limit, found.base].map((value) => value.toExponential(1))
  console.log(
    `${passed ? 'ok  ' : 'FAIL'} ${title}, ${dtype}: logits differ by ${figures[0]} (allowed ${figures[1]}); without adapters by ${figures[2]}` +
      (found.missing.length === 0 ? '' : `; ${found.missing.join(', ')}`),
  )
  if (!passed) process.exitCode = 1
}

/** What rounding to a dtype may do to logits, of models of a few to some tens of layers. */
const allowed = { f32: 1e-5, f16: 1e-2, bf16: 1e-1 } as const

async function compareGolden(python: string, work: string): Promise<void> {
  const { cases } = JSON.parse(await readFile(join(golden, 'merge/golden.json'), 'utf8')) as {
    cases: Record<string, { model: string; adapters: Record<string, number> }>
  }
  for (const [title, { model, adapters }] of Object.entries(cases)) {
    const there = Object.fromEntries(Object.entries(adapters).map(([path, scale]) => [join(golden, path), scale]))
    const common = { title, model: join(golden, model), adapters: there }
    await compare(python, work, { ...common, dtype: 'f32', allowed: allowed.f32 })
  }
}

async function compareGiven(python: string, work: string, args: readonly string[]): Promise<void> {
  const model = modelFolder(args)
  const given = args.flatMap((arg, i) => (arg === '--adapter' ? [args[i + 1] ?? ''] : []))
  const adapters = Object.fromEntries(
    given.map((text) => {
      const [, path = text, scale = '1'] = /^(.+):([-\d.]+)$/.exec(text) ?? []
      return [path, Number(scale)]
    }),
  )
  const tokenizer = await loadTokenizer(model)
  const [text] = await tokenizer.encode([
    'Ticket: I was charged twice for my order of the third of May, and nobody has answered my letters. What can be done about it?',
  ])
  tokenizer.close()
  const ids = join(work, 'ids.json')
  await writeFile(ids, JSON.stringify([...(text ?? [])]))
  const title = `${basename(model)} with ${given.map((one) => basename(one)).join(' and ')}`
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    await compare(python, work, { title, model, adapters, dtype, allowed: allowed[dtype], ids })
}

const args = process.argv.slice(2)
const python = await findPython()
if (python !== undefined) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-merge-'))
  try {
    if (args.includes('--model')) await compareGiven(python, work, args)
    else await compareGolden(python, work)
  } finally {
    await rm(work, { recursive: true })
  }
}
