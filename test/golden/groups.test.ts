import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { openDecoder } from '../../src/session/decoder.ts'
import type { OptimizerConfig } from '../../src/train/config.ts'
import { makeOptimizer } from '../../src/train/optimizer.ts'
import { elements } from '../../src/util/shape.ts'

/** Made by `make_group_golden.py` with transformers' Trainer and PEFT's LoRA+. */
interface Golden {
  readonly rate: number
  readonly decay: number
  readonly ratio: number
  readonly models: Readonly<Record<string, Partial<Readonly<Record<Kind, Groups>>>>>
}
type Kind = 'trainer' | 'loraplus'
type Groups = Readonly<
  Record<string, { readonly shape: readonly number[]; readonly group: readonly [rate: number, decay: number] }>
>

const folder = fileURLToPath(new URL('.', import.meta.url))
const golden = JSON.parse(await readFile(`${folder}groups/golden.json`, 'utf8')) as Golden
const kinds = ['trainer', 'loraplus'] as const
const cases = Object.entries(golden.models).flatMap(([model, groups]) =>
  kinds.flatMap((kind) => (groups[kind] === undefined ? [] : [[model, kind, groups[kind]] as const])),
)

let largest = 0
afterAll(() => console.info(`largest difference from Trainer and PEFT: ${largest.toExponential(1)}`))

/** As the trainer calls a parameter of this name in an adapter file. */
const ownName = (name: string): string => name.replace(/^base_model\.model\./, '')

test('both kinds of groups', () => {
  expect(cases.map(([, kind]) => kind).sort()).toEqual([
    ...new Array<Kind>(3).fill('loraplus'),
    ...new Array<Kind>(7).fill('trainer'),
  ])
})

/** Rate and decay of each parameter, seen from what an update of SGD does to it. */
function seen(groups: Groups, config: Pick<OptimizerConfig, 'loraplusLrRatio'>): Record<string, number[]> {
  const common = { optim: 'sgd', adamBeta1: 0, adamBeta2: 0, adamEpsilon: 1, ...config } as const
  const found: Record<string, number[]> = {}
  for (const [name, { shape }] of Object.entries(groups)) {
    const parameter = (value: number, gradient: number) => {
      const size = elements(shape)
      const fill = (x: number): Float32Array => new Float32Array(size).fill(x)
      return { name: ownName(name), shape, data: fill(value), gradient: fill(gradient) }
    }
    const [moved, decayed] = [parameter(0, 1), parameter(1, 0)]
    makeOptimizer([moved], { ...common, weightDecay: golden.decay }).step(golden.rate, 1)
    makeOptimizer([decayed], { ...common, weightDecay: golden.decay }).step(1, 1)
    const rate = -(moved.data[0] ?? NaN)
    found[name] = [rate, (1 - (decayed.data[0] ?? NaN)) / (rate / golden.rate)]
  }
  return found
}

test.each(cases)('%s: rates and decays as %s has them', async (model, kind, groups) => {
  const [base = '', adapter = ''] = model.split('/')
  if (adapter !== 'saved modules') {
    const decoder = await openDecoder({
      model: folder + base,
      adapter: adapter === 'base' ? undefined : `${folder}${base}/${adapter}`,
      training: { lora: undefined, init: 'pretrained', seed: 1 },
    })
    expect(Object.keys(groups).map(ownName).sort()).toEqual([...decoder.trainables.keys()].sort())
    await decoder.close()
  }
  const found = seen(groups, { loraplusLrRatio: kind === 'loraplus' ? golden.ratio : undefined })
  for (const [name, { group }] of Object.entries(groups)) {
    group.forEach((expected, i) => {
      const difference = Math.abs((found[name]?.[i] ?? NaN) - expected)
      largest = Math.max(largest, difference)
      expect(difference, name).toBeLessThan(1e-6)
    })
  }
})
