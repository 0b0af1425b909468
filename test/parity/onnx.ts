/*
 * An exported ONNX model in the programs that it is for: the same greedy tokens as Lowrank with the adapter beside its base.
 *
 *     npm run parity:onnx -- --model DIR [--adapter DIR] [--dtypes f32,f16] [--tokens 24]
 *
 * Without --adapter one is trained for a few steps. transformers.js is looked for in $LOWRANK_PEERS, a folder in which npm has
 * installed it, else beside the repository's packages; onnxruntime-genai in the Python $LOWRANK_GENAI_PYTHON, else python3. What is missing
 * is skipped with a line.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { realShapedExamples, toJsonl } from '../../bench/data.ts'
import { modelDefaults } from '../../src/generate/defaults.ts'
import { exportModel, finetune } from '../../src/index.ts'
import { openGeneration } from '../../src/session/generation.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'

const run = promisify(execFile)
const scripts = join(import.meta.dirname, '../../../test/parity')

const prompts = [
  'The capital of France is',
  'def add(a, b):\n    return',
  '1 + 2 = 3, 4 + 5 = ',
  'Es war einmal ein',
  'Ticket: I was charged twice this month.\nCategory:',
  'A recipe for bread needs flour, water,',
  'The three laws of motion were written by',
  'Once upon a time there was a small robot who',
  '{"name": "Ada", "born": ',
  'Water boils at 100 degrees because',
]

function report(passed: boolean, what: string): void {
  console.log(`${passed ? 'ok  ' : 'FAIL'} ${what}`)
  if (!passed) process.exitCode = 1
}

/** A few steps, so that the adapter changes what is generated. */
async function trainedAdapter(model: string, work: string): Promise<string> {
  const [train, outputDir] = [join(work, 'train.jsonl'), join(work, 'adapter')]
  await writeFile(train, toJsonl(realShapedExamples({ count: 32, seed: 1 })))
  const options = { model, train, outputDir, r: 8, loraAlpha: 16, learningRate: 1e-3, maxSteps: 8, maxLength: 128 }
  for await (const event of finetune({ ...options, saveStrategy: 'no', seed: 1 })) {
    if (event.type === 'step') console.log(`trained step ${event.step}: loss ${event.loss.toFixed(4)}`)
  }
  return outputDir
}

interface Continued {
  readonly ids: readonly (readonly number[])[]
  readonly endIds: readonly number[]
  /** Of each prompt, its tokens and the new ones. */
  readonly sequences: readonly (readonly number[])[]
}

/** Greedy continuations, the adapter beside the base. */
async function ownTokens(model: string, adapter: string, tokens: number): Promise<Continued> {
  const { endIds } = await modelDefaults(model)
  const tokenizer = await loadTokenizer(model)
  const ids = (await tokenizer.encode(prompts)).map((text) => [...tokenizer.prefix, ...text])
  tokenizer.close()
  const generation = await openGeneration({ model })
  const loaded = await generation.adapter(adapter)
  const sequences: number[][] = []
  for (const prompt of ids) {
    const cache = generation.decoder.newCache()
    const sequence = [...prompt]
    let next: readonly number[] = prompt
    while (
      sequence.length < prompt.length + tokens &&
      !(sequence.length > prompt.length && endIds.includes(next[0]!))
    ) {
      const request = { ids: Int32Array.from(next), adapters: [loaded], logits: 'last' } as const
      const logits = await generation.decoder.run(cache, request)
      next = [logits!.reduce((best, value, i) => (value > logits![best]! ? i : best), 0)]
      sequence.push(...next)
    }
    sequences.push(sequence)
  }
  await generation.close()
  return { ids, endIds, sequences }
}

/** What a script prints as JSON; undefined with a line where what it needs is missing. */
async function theirs(
  what: string,
  file: string,
  args: readonly string[],
): Promise<{ readonly version: string; readonly sequences: readonly (readonly number[])[] } | undefined> {
  try {
    const env = { ...process.env, ORT_DISABLE_TELEMETRY: '1' }
    const { stdout } = await run(file, args, { maxBuffer: 1 << 26, env })
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Awaited<ReturnType<typeof theirs>>
  } catch (error) {
    const { code, stderr = '' } = error as { readonly code?: unknown; readonly stderr?: string }
    if (code !== 3 && code !== 'ENOENT') throw error
    console.log(`skipped ${what}: ${stderr.trim().split('\n').at(-1) ?? ''}`)
    return undefined
  }
}

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    adapter: { type: 'string' },
    dtypes: { type: 'string', default: 'f32' },
    tokens: { type: 'string', default: '24' },
  },
})
const { model } = values
if (model === undefined || !existsSync(model)) {
  console.error('give the folder of a model: --model DIR')
  process.exit(2)
}
const work = await mkdtemp(join(tmpdir(), 'lowrank-parity-onnx-'))
try {
  const adapter = values.adapter ?? (await trainedAdapter(model, work))
  const { ids, endIds, sequences } = await ownTokens(model, adapter, Number(values.tokens))
  // Not every program gives the token that ends a text.
  const untilEnd = (sequence: readonly number[] = []): string =>
    String(endIds.includes(sequence.at(-1) ?? -1) ? sequence.slice(0, -1) : sequence)
  const asked = join(work, 'prompts.json')
  await writeFile(asked, JSON.stringify({ prompts, ids, tokens: Number(values.tokens) }))
  for (const dtype of values.dtypes.split(',') as ('f32' | 'f16' | 'q8_0' | 'q4_0')[]) {
    const output = join(work, `model-${dtype}`)
    const { checked } = await exportModel({ model, adapter, to: 'onnx', dtype, output })
    console.log(`${dtype}: logits read back differ by ${checked?.logits?.largestDifference.toExponential(1)}`)
    for (const [what, file, script] of [
      ['transformers.js', process.execPath, 'transformers_js.js'],
      ['onnxruntime-genai', process.env['LOWRANK_GENAI_PYTHON'] ?? 'python3', 'genai_tokens.py'],
    ] as const) {
      const found = await theirs(what, file, [join(scripts, script), output, asked])
      if (found === undefined) continue
      const same = sequences.filter((sequence, i) => untilEnd(sequence) === untilEnd(found.sequences[i])).length
      // In f32 and f16 tokens are the same; integers leave that path, and are told.
      const passed = same === sequences.length || dtype.startsWith('q')
      report(passed, `${dtype}, ${what} ${found.version}: ${same} of ${sequences.length} prompts with the same tokens`)
    }
  }
} finally {
  await rm(work, { recursive: true })
}
