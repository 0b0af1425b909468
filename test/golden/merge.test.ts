import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openSafetensors, type TensorReader } from '../../src/formats/safetensors.ts'
import { headName } from '../../src/model/names.ts'
import { readAdapter } from '../../src/model/peft/adapter.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { mergedWeights, type MergedWeights } from '../../src/model/sources/merged.ts'
import { openDecoder } from '../../src/session/decoder.ts'
import { widened } from '../../src/storage/formats.ts'
import { bytesOf } from '../../src/util/dtype.ts'
import { makeBatch } from '../../src/text/batches.ts'

/** Beside the script that made them, `make_merge_golden.py`. */
const golden = fileURLToPath(new URL('.', import.meta.url))

interface Case {
  readonly model: string
  readonly adapters: Readonly<Record<string, number>>
  readonly ids: readonly number[]
  readonly tied: boolean
}

const { cases } = JSON.parse(readFileSync(join(golden, 'merge/golden.json'), 'utf8')) as {
  cases: Readonly<Record<string, Case>>
}

let tensors: TensorReader
const largest = new Map<string, number>()
const note = (what: string, value: number): void => void largest.set(what, Math.max(largest.get(what) ?? 0, value))

beforeAll(async () => {
  tensors = await openSafetensors(join(golden, 'merge/golden.safetensors'))
})
afterAll(async () => {
  await tensors.close()
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`largest differences from PEFT: ${found.join(', ')}`)
})

const floatsOf = async (name: string): Promise<Float32Array> => new Float32Array((await tensors.read(name)).buffer)

/** The weights that PEFT changed, by their names in the model. */
const changedOf = (title: string): string[] =>
  [...tensors.tensors.keys()]
    .filter((name) => name.startsWith(`${title}.`) && name !== `${title}.logits`)
    .map((name) => name.slice(title.length + 1))

async function open({ model, adapters }: Pick<Case, 'model' | 'adapters'>): Promise<MergedWeights> {
  const parts = Object.entries(adapters).map(async ([path, scale]) => {
    const folder = join(golden, path)
    return { folder, adapter: await readAdapter(folder), scale }
  })
  return mergedWeights(await openWeights(join(golden, model)), await Promise.all(parts))
}

test('the cases have all kinds of adapters', () => {
  expect(Object.keys(cases)).toHaveLength(12)
})

describe.each(Object.entries(cases).filter(([title]) => title !== 'linear'))('%s', (title, expected) => {
  let merged: MergedWeights

  beforeAll(async () => {
    merged = await open(expected)
  })
  afterAll(() => merged.close())

  test('changes the weights that PEFT changes, to the same', async () => {
    const found = changedOf(title)
    expect(found.length).toBeGreaterThan(3)
    const separate = merged.specs.some(({ name }) => name === headName) && expected.model === 'gqa-tied'
    expect(merged.config.tieWordEmbeddings).toBe(expected.tied)
    const names = merged.specs.map(({ name }) => name).filter((name) => merged.changes(name))
    expect(names.toSorted()).toEqual(found.toSorted())
    if (title === 'head' || title === 'embedding' || title === 'saved-head') expect(separate).toBe(true)
    for (const name of found) {
      const theirs = await floatsOf(`${title}.${name}`)
      const ours = await merged.load(name)
      expect(ours.storage).toBe('F32')
      const values = widened(ours).data
      expect(values).toHaveLength(theirs.length)
      // Ours is rounded once; theirs after each product and each sum.
      const scale = theirs.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const worst = theirs.reduce((most, value, i) => Math.max(most, Math.abs(value - values[i]!)), 0)
      note('weights', worst / scale)
      expect(worst, name).toBeLessThanOrEqual(2 ** -22 * scale)
    }
  })

  test('leaves all others as they are, row by row too', async () => {
    const base = await openWeights(join(golden, expected.model))
    for (const { name, shape } of merged.specs) {
      const whole = widened(await merged.load(name)).data
      const width = shape.length < 2 ? shape[0]! : shape[1]!
      let parts = 0
      for await (const { rows, after } of merged.rowsOf(name, { mostElements: 5 * width })) {
        const own = whole.subarray(rows.start * width, rows.end * width)
        expect(Buffer.compare(bytesOf(after), bytesOf(own)), name).toBe(0)
        parts++
      }
      expect(parts).toBe(shape.length < 2 ? 1 : Math.ceil(shape[0]! / 5))
      if (merged.changes(name) || name === headName) continue
      expect(Buffer.compare(bytesOf(whole), bytesOf(widened(await base.load(name)).data)), name).toBe(0)
      expect(merged.storage(name)).toBe(base.storage(name))
    }
    await base.close()
  })

  test('computes what the base with its adapters computes in PEFT', async () => {
    const theirs = await floatsOf(`${title}.logits`)
    const { pipeline, close } = await openDecoder({
      model: join(golden, expected.model),
      source: await open(expected),
    })
    const vocabulary = theirs.length / expected.ids.length
    const ids = Int32Array.from(expected.ids)
    const batch = makeBatch([{ ids, labelMask: new Uint8Array(ids.length).fill(1), line: 1 }])
    let row = 0
    await pipeline.logits(batch, (logits) => {
      for (let i = 0; i < logits.length; i++) {
        const difference = Math.abs(logits[i]! - theirs[row * vocabulary + i]!)
        note('logits', difference)
        expect(difference).toBeLessThan(1e-4)
      }
      row += logits.length / vocabulary
    })
    expect(row).toBe(ids.length - 1)
    await close()
  })
})

test('what PEFT calls linear is another sum', async () => {
  const merged = await open(cases['linear']!)
  const name = 'model.layers.0.self_attn.q_proj.weight'
  const [ours, theirs] = [widened(await merged.load(name)).data, await floatsOf(`linear.${name}`)]
  const worst = theirs.reduce((most, value, i) => Math.max(most, Math.abs(value - ours[i]!)), 0)
  expect(worst).toBeGreaterThan(0.01)
  await merged.close()
})
