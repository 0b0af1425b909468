import { join } from 'node:path'
import type { TrainConfigInput } from 'lowrank'
import { directTasks } from '../tasks.ts'
import { collect, makeTinyModel, temporaryFolder, writeData } from './support.ts'

/** A tiny model with adapters to merge, in a folder that is gone after the tests of a file. */
export interface MergeSetup {
  readonly folder: string
  readonly data: { readonly train: string; readonly valid: string }
  readonly at: (name: string) => string
  /** Makes the model, and trains `lora` (with biases) and `qlora` on all linear layers, `other` on two of them. */
  readonly prepare: () => Promise<string>
  /** Trains an adapter for a few steps. */
  readonly train: (name: string, options?: Partial<TrainConfigInput>) => Promise<string>
  readonly lossOf: (options: { model: string; adapter?: string; loadIn4bit?: boolean }) => Promise<number>
}

export function mergeSetup(): MergeSetup {
  const folder = temporaryFolder()
  const data = writeData(folder)
  const at = (name: string): string => join(folder, name)
  const common = { ...data, r: 4, maxSteps: 3, maxLength: 64, learningRate: 2e-2, saveStrategy: 'no' } as const
  const train: MergeSetup['train'] = async (name, options) => {
    await collect({ ...common, model: at('tiny'), outputDir: at(name), ...options })
    return at(name)
  }
  return {
    folder,
    data,
    at,
    train,
    prepare: async () => {
      const model = await makeTinyModel(folder)
      await train('lora', { targetModules: 'all-linear', bias: 'all' })
      await train('other', { seed: 7, targetModules: ['q_proj', 'down_proj'], useRslora: true })
      await train('qlora', { method: 'qlora', targetModules: 'all-linear' })
      return model
    },
    lossOf: async (options) => (await directTasks.evaluate({ ...options, data: data.valid, maxLength: 64 })).loss,
  }
}
