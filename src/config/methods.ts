import { loraKeys } from './groups/lora.ts'
import { isSet, parseTrainConfig, trainSchema, type TrainConfig } from './train.ts'

/** Ways to train that are compared, by what they are called. */
export const methodNames = ['full', 'lora', 'qlora', 'qlora-fp4', 'qlora-8bit'] as const

export type MethodName = (typeof methodNames)[number]

const methods = {
  full: { method: 'full' },
  lora: { method: 'lora' },
  qlora: { method: 'qlora', bnb4bitQuantType: 'nf4' },
  'qlora-fp4': { method: 'qlora', bnb4bitQuantType: 'fp4' },
  'qlora-8bit': { method: 'qlora', loadIn8bit: true },
} as const satisfies Record<MethodName, Partial<TrainConfig>>

/** The rate that users start from: transformers' default for all weights, that of the QLoRA paper (Dettmers et al. 2023) for adapters. */
export function startingRate(name: MethodName): number {
  return name === 'full' ? 5e-5 : 2e-4
}

/** What a method trains with by a configuration: its own rate where it was chosen for a method of this kind, else the starting one. */
export function rateFor(config: TrainConfig, name: MethodName): number {
  const sameKind = (config.method === 'full') === (name === 'full')
  return sameKind && isSet(config, 'learningRate') ? config.learningRate : startingRate(name)
}

/** What a configuration calls its own method. */
export function methodOf({ method, loadIn8bit, bnb4bitQuantType }: TrainConfig): MethodName {
  if (method !== 'qlora') return method
  return loadIn8bit ? 'qlora-8bit' : bnb4bitQuantType === 'fp4' ? 'qlora-fp4' : 'qlora'
}

/** Options that a method decides. */
const decided = new Set(['method', 'loadIn4bit', 'loadIn8bit', 'bnb4bitQuantType'])
/** Those of a base in 4 bits. */
const fourBit = new Set(['bnb4bitUseDoubleQuant', 'bnb4bitBlockSize'])
const adapterKeys: ReadonlySet<string> = new Set(loraKeys)

/**
 * A configuration with another method, complete. Of a rank that is given, alpha follows, so that the scale of updates (alpha / r) stays. Options
 * of adapters are left out of full fine-tuning, those of 4 bits where the base is not.
 */
export function withMethod(config: TrainConfig, name: MethodName, changes: Partial<TrainConfig> = {}): TrainConfig {
  const four = name === 'qlora' || name === 'qlora-fp4'
  const { r = config.r } = changes
  const kept = Object.entries(config).filter(
    ([key]) =>
      key in trainSchema.shape &&
      !decided.has(key) &&
      (four || !fourBit.has(key)) &&
      (name !== 'full' || !adapterKeys.has(key)),
  )
  const { r: _, ...others } = changes
  const rank = name === 'full' ? {} : { r, loraAlpha: (config.loraAlpha / config.r) * r }
  return parseTrainConfig({ ...Object.fromEntries(kept), ...rank, ...methods[name], ...others })
}
