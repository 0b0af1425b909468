import type { TrainConfig } from '../config/index.ts'

/** What is compared: what is trained, and how the base is held meanwhile. */
export const planMethods = ['full', 'lora', 'qlora', 'qlora-fp4', 'qlora-8bit'] as const

export type PlanMethod = (typeof planMethods)[number]

/** Where what the backward pass reads comes from: kept, computed again, or that with the blocks on disk. */
export const places = ['keep', 'recompute', 'streamed'] as const

export type Place = (typeof places)[number]

/** The run that a method is, of a configuration whose own method does not count. */
export function configOf<C extends Omit<TrainConfig, 'train' | 'outputDir'>>(config: C, method: PlanMethod): C {
  const plain = { ...config, loadIn4bit: false, loadIn8bit: false }
  if (method === 'full') return { ...plain, method, adapter: undefined }
  if (method === 'lora') return { ...plain, method }
  if (method === 'qlora-8bit') return { ...plain, method: 'qlora', loadIn8bit: true }
  return {
    ...plain,
    method: 'qlora',
    loadIn4bit: true,
    bnb4bitQuantType: method === 'qlora-fp4' ? 'fp4' : 'nf4',
    bnb4bitUseDoubleQuant: config.bnb4bitUseDoubleQuant ?? true,
    bnb4bitBlockSize: config.bnb4bitBlockSize ?? 64,
  }
}
