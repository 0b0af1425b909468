import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { openDecoder } from '../../src/session/decoder.ts'
import { makeBatch, type Batch } from '../../src/text/batches.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { uniform } from './uniform.ts'

const golden = fileURLToPath(new URL('.', import.meta.url))

async function batchOf(model: string): Promise<Batch> {
  const { batches } = JSON.parse(await readFile(join(golden, model, 'inputs.json'), 'utf8')) as {
    batches: { ids: number[]; labelMask: number[] }[][]
  }
  return makeBatch(
    batches[0]!.map(({ ids, labelMask }) => ({
      ids: Int32Array.from(ids),
      labelMask: Uint8Array.from(labelMask),
      line: 1,
    })),
  )
}

/** The loss and all gradients, one after the other, of an adapter on one kind of layer. */
async function gradientsOf(model: string, target: string, activations: 'keep' | 'recompute'): Promise<number[]> {
  const decoder = await openDecoder({
    model: join(golden, model),
    threads: 2,
    training: {
      lora: { r: 2, loraAlpha: 4, targetModules: [target], loraDropout: 0, bias: 'none', useRslora: false },
      init: 'pretrained',
      seed: 1,
    },
    choice: { activations },
  })
  const { pipeline, trainables } = decoder
  ;[...trainables.values()].forEach(({ data }, salt) => data.forEach((_, i) => (data[i] = 0.5 * uniform(i, salt))))
  const batches = [await batchOf(model)]
  const { lossSum } = await accumulateGradients({ pipeline, trainables, batches, seed: 1, step: 0 })
  await decoder.close()
  return [lossSum, ...[...trainables.values()].flatMap(({ gradient }) => Array.from(gradient))]
}

// Which values a backward program is given depends on what is trained: below the lowest adapter it reads nothing.
test.each(
  ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'].flatMap((target) =>
    ['gqa-tied', 'bias-untied'].map((model) => [target, model] as const),
  ),
)('an adapter on %s of %s alone has the same gradients however activations are held', async (target, model) => {
  const [kept, recomputed] = [await gradientsOf(model, target, 'keep'), await gradientsOf(model, target, 'recompute')]
  expect(kept.length).toBeGreaterThan(100)
  const largest = recomputed.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const difference = kept.reduce((most, value, i) => Math.max(most, Math.abs(value - recomputed[i]!)), 0)
  expect(difference / largest).toBeLessThan(1e-6)
})
