/*
 * Quantized checkpoints between here and transformers + bitsandbytes, both ways, for nf4, nf4 with double quantization, fp4 and int8:
 * what is written here loads there, with the same weights and loss; what is saved there loads here, with the bytes that are made here.
 *
 *     npm run parity:quantized [-- --model DIR]
 *
 * The models are those of test/golden, and the one given. Without Python (torch, transformers, bitsandbytes) it says so and passes.
 */
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { realShapedExamples, toJsonl } from '../../bench/data.ts'
import { findPython, hasBitsAndBytes, modelFolder, runPython } from '../../bench/python.ts'
import { quantizeOptions } from '../../src/commands/options.fixture.ts'
import { quantizationOf } from '../../src/config/index.ts'
import { quantizedNames, quantizedWeights } from '../../src/model/sources/quantized.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { widened } from '../../src/storage/formats.ts'
import { openDecoder } from '../../src/session/decoder.ts'
import type { StoredWeight } from '../../src/storage/stored.ts'
import { runQuantize } from '../../src/tasks/quantize.ts'
import { evalBatches } from '../../src/text/batches.ts'
import type { Example } from '../../src/text/example.ts'
import { readExamples } from '../../src/text/examples.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { resultOf } from '../../src/util/task.ts'

const kinds = {
  nf4: { bnb4bitUseDoubleQuant: false },
  'nf4-nested': {},
  fp4: { loadIn4bit: true, bnb4bitQuantType: 'fp4', bnb4bitUseDoubleQuant: false },
  int8: { loadIn8bit: true },
} as const

const test = fileURLToPath(new URL('../../../test/', import.meta.url))
const script = join(test, 'parity/quantized.py')

function report(passed: boolean, what: string): void {
  console.log(`${passed ? 'ok  ' : 'FAIL'} ${what}`)
  if (!passed) process.exitCode = 1
}

async function compare(python: string, model: string, work: string, examples: readonly Example[]): Promise<void> {
  const data = join(work, 'examples.json')
  const labelled = examples.map(({ ids, labelMask }) => {
    return { ids: [...ids], labels: [...ids].map((id, i) => (labelMask[i] === 1 ? id : -100)) }
  })
  await writeFile(data, JSON.stringify(labelled))
  for (const [kind, options] of Object.entries(kinds)) {
    const title = `${basename(model)}, ${kind}`
    const output = join(work, `${basename(model)}-${kind}`)
    const config = quantizeOptions.parse({ model, output, ...options })
    await resultOf(runQuantize(config, { cancelled: () => false }))

    const there = await runPython<{ weights: Record<string, string>; loss: number }>(python, script, [
      'load',
      '--model',
      output,
      '--examples',
      data,
    ])
    // Zeros have no sign: that of code 8 of fp4 depends on the processor there.
    const ours = await hashes(output, (weight) => [widened(weight).data.map((value) => value + 0)])
    report(same(ours, there.weights), `${title}: ${ours.size} weights written here are the same there, dequantized`)
    const here = await lossOf(output, examples)
    const difference = Math.abs(here - there.loss)
    const figures = `here ${here.toFixed(6)}, there ${there.loss.toFixed(6)}`
    report(difference < 1e-4, `${title}: loss ${figures}, difference ${difference.toExponential(1)}, allowed 1e-4`)

    const saved = join(work, `${basename(model)}-${kind}-saved`)
    await runPython(python, script, ['save', '--model', model, '--kind', kind, '--output', saved])
    const loaded = await hashes(saved, parts)
    const made = await hashes(model, parts, quantizationOf(config))
    report(
      same(made, Object.fromEntries(loaded)),
      `${title}: ${loaded.size} weights saved there have the bytes made here`,
    )
    await Promise.all([output, saved].map((folder) => rm(folder, { recursive: true })))
  }
}

function same(ours: ReadonlyMap<string, string>, theirs: Readonly<Record<string, string>>): boolean {
  return (
    ours.size > 0 &&
    ours.size === Object.keys(theirs).length &&
    [...ours].every(([name, hash]) => theirs[name] === hash)
  )
}

/** The SHA-256 of what `pick` takes of each quantized linear layer of a folder, which may be quantized as it is read. */
async function hashes(
  folder: string,
  pick: (weight: StoredWeight) => readonly NodeJS.TypedArray[],
  quantization?: ReturnType<typeof quantizationOf>,
): Promise<Map<string, string>> {
  const source = await openWeights(folder)
  const weights = quantization === undefined ? source : quantizedWeights(source, quantization, () => false)
  const isLinear = quantizedNames(source)
  const found = new Map<string, string>()
  for (const { name } of source.specs.filter((spec) => isLinear(spec.name))) {
    const hash = createHash('sha256')
    for (const part of pick(await weights.load(name))) hash.update(part)
    found.set(name, hash.digest('hex'))
  }
  await source.close()
  return found
}

/** All that a quantized weight consists of. */
function parts(weight: StoredWeight): NodeJS.TypedArray[] {
  if ('scale' in weight) return [weight.data, weight.scale]
  if (!('packed' in weight)) throw new Error('not quantized')
  const { codes, scales } = weight.packed
  return 'codes' in scales
    ? [codes, scales.codes, scales.absmax, scales.map, Float32Array.of(scales.offset)]
    : [codes, scales.absmax]
}

async function lossOf(model: string, examples: readonly Example[]): Promise<number> {
  const { pipeline, close } = await openDecoder({ model })
  const { loss } = await evaluateBatches({ pipeline, batches: evalBatches(examples, 4) })
  await close()
  return loss
}

/** The examples that the golden values of a model are for. */
async function goldenExamples(model: string): Promise<Example[]> {
  const { batches } = JSON.parse(await readFile(join(model, 'inputs.json'), 'utf8')) as {
    batches: { ids: number[]; labelMask: number[] }[][]
  }
  return batches
    .flat()
    .map(({ ids, labelMask }, i) => ({ ids: Int32Array.from(ids), labelMask: Uint8Array.from(labelMask), line: i + 1 }))
}

async function realExamples(model: string, work: string): Promise<readonly Example[]> {
  const path = join(work, 'valid.jsonl')
  await writeFile(path, toJsonl(realShapedExamples({ count: 6, seed: 2 })))
  return (
    await readExamples({ sources: [{ path, weight: 1 }], tokenizer: await loadTokenizer(model), maxLength: 256 })
  ).examples.slice()
}

const args = process.argv.slice(2)
const python = await findPython()
if (python !== undefined && hasBitsAndBytes(python)) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-quantized-'))
  try {
    for (const name of ['bias-untied', 'gqa-tied']) {
      const model = join(test, 'golden', name)
      await compare(python, model, work, await goldenExamples(model))
    }
    if (args.includes('--model')) {
      const model = modelFolder(args)
      await compare(python, model, work, await realExamples(model, work))
    }
  } finally {
    await rm(work, { recursive: true })
  }
}
