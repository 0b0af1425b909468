import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { logLikelihoods } from '../../src/generate/continuations.ts'
import { openGeneration } from '../../src/session/generation.ts'
import { cases, writeModel } from './family-model.ts'

/** See `make_likelihood_golden.py`. */
interface Golden {
  readonly prompt: number
  readonly continuations: Readonly<Record<string, readonly (readonly number[])[]>>
  readonly scores: Readonly<Record<string, Readonly<Record<'base' | 'adapter', readonly number[]>>>>
}
const golden = JSON.parse(await readFile(join(import.meta.dirname, 'metrics', 'likelihoods.json'), 'utf8')) as Golden

test('golden values are there for every family', () => {
  expect(Object.keys(golden.scores)).toEqual(cases.toSorted())
})

test.each(cases)('%s: continuations are as likely as transformers says', async (name) => {
  const model = await mkdtemp(join(tmpdir(), 'lowrank-likelihoods-'))
  try {
    const { examples } = await writeModel(name, model)
    const generation = await openGeneration({ model, threads: 1 })
    try {
      const prompt = examples[0]!.ids.slice(0, golden.prompt)
      const continuations = golden.continuations[name]!.map((ids) => Int32Array.from(ids))
      expect(continuations.length).toBeGreaterThanOrEqual(7)
      for (const run of ['base', 'adapter'] as const) {
        const adapter = run === 'base' ? undefined : await generation.adapter(join(model, 'adapter'))
        const found = await logLikelihoods(generation.decoder, { prompt, continuations, adapter })
        const wanted = golden.scores[name]![run]
        const worst = Math.max(...found.map((score, i) => Math.abs(score - wanted[i]!)))
        expect(worst, `${run}: ${found.join(' ')} for ${wanted.join(' ')}`).toBeLessThan(2e-4)
      }
    } finally {
      await generation.close()
    }
  } finally {
    await rm(model, { recursive: true })
  }
})
