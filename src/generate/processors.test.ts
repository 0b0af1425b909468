import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { processors, topIndices, type SamplingOptions } from './processors.ts'

/** Made by `make_generation_golden.py` with the processors of transformers. */
interface Golden {
  readonly sets: number
  readonly vectors: Readonly<Record<string, readonly number[]>>
  readonly cases: readonly {
    readonly vector: string
    readonly prompt: readonly number[]
    readonly made: readonly number[]
    readonly options: Options
    /** null: minus infinity */
    readonly expected: readonly (number | null)[]
  }[]
}

interface Options {
  readonly do_sample?: boolean
  readonly temperature?: number
  readonly top_k?: number
  readonly top_p?: number
  readonly min_p?: number
  readonly repetition_penalty?: number
  readonly presence_penalty?: number
  readonly frequency_penalty?: number
  readonly logit_bias?: Readonly<Record<string, number>>
}

const path = fileURLToPath(new URL('../../test/golden/generation/samplers.json', import.meta.url))
const { sets, vectors, cases } = JSON.parse(await readFile(path, 'utf8')) as Golden

let largest = 0
afterAll(() => console.info(`processed logits, largest difference from transformers: ${largest.toExponential(1)}`))

function processed(logits: readonly number[], options: SamplingOptions, prompt: readonly number[], made: number[]) {
  const values = Float32Array.from(logits)
  for (const process of processors(options)) process(values, { prompt, made })
  return values
}

function optionsOf(asked: Options): SamplingOptions {
  return {
    doSample: asked.do_sample ?? false,
    temperature: asked.temperature,
    topK: asked.top_k,
    topP: asked.top_p,
    minP: asked.min_p,
    repetitionPenalty: asked.repetition_penalty,
    presencePenalty: asked.presence_penalty,
    frequencyPenalty: asked.frequency_penalty,
    logitBias: asked.logit_bias && new Map(Object.entries(asked.logit_bias).map(([id, by]) => [Number(id), by])),
  }
}

describe('logits are changed as transformers does', () => {
  test('in so many cases', () => {
    expect(sets).toBeGreaterThanOrEqual(30)
    expect(cases.length).toBeGreaterThan(200)
    const used = new Set(cases.flatMap(({ options }) => Object.keys(options)))
    expect(used.size).toBe(9)
  })

  test.each(Object.keys(vectors))('of "%s"', (name) => {
    const own = cases.filter(({ vector }) => vector === name)
    expect(own.length).toBeGreaterThan(15)
    for (const { prompt, made, options, expected } of own) {
      let found = [...processed(vectors[name]!, optionsOf(options), prompt, [...made])]
      let wanted = expected.map((value) => value ?? -Infinity)
      // Which of equal tokens top-p keeps is left to a sort.
      if (options.top_p !== undefined)
        [found, wanted] = [found, wanted].map((all) => all.toSorted((a, b) => a - b)) as [number[], number[]]
      const what = JSON.stringify(options)
      expect(found.map(Number.isFinite), what).toEqual(wanted.map(Number.isFinite))
      found.forEach((value, i) => {
        if (value === wanted[i]) return
        const difference = Math.abs(value - wanted[i]!) / Math.max(1, Math.abs(wanted[i]!))
        largest = Math.max(largest, difference)
        expect(difference, what).toBeLessThan(1e-6)
      })
    }
  })
})

test('of equal tokens top-p keeps the last, and so the same ones each time', () => {
  const kept = processed([2, 2, 2, 2], { doSample: true, topP: 0.5 }, [], [])
  expect([...kept]).toEqual([-Infinity, -Infinity, 2, 2])
})

test('the largest values of a vocabulary, the largest first, of equal ones the first', () => {
  const values = Float32Array.from({ length: 997 }, (_, i) => (i * 7919) % 101)
  const sorted = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b)
  for (const count of [0, 1, 2, 10, 500, 997, 2000]) expect(topIndices(values, count)).toEqual(sorted.slice(0, count))
})
