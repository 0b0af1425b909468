import { quantizationOf, type SelftestConfig, type TrainConfigInput } from './config.ts'
import { PreparedDecoder } from './decoder.ts'
import { checkVocabulary, loadDecoder, type OpenModel } from './open.ts'
import { planMemory } from './plan.ts'
import { makeBatch } from './text/batches.ts'
import type { Example } from './text/examples.ts'
import { loadTokenizer } from './text/tokenizer.ts'
import { fillUniform, stream } from './util/random.ts'

/** What a check trains, and how. */
export interface Subject {
  /** An adapter (that of the user, or a new one on all linear layers), or every weight. */
  readonly trained: 'adapter' | 'all'
  /** Of a new adapter; 0 where it is left out. */
  readonly dropout?: number
  readonly activations?: 'keep' | 'recompute'
  /** Folder of the adapter, where it is not that of the user. */
  readonly folder?: string
}

export interface ContextOptions {
  readonly config: SelftestConfig
  /** Temporary; for what a check writes. */
  readonly folder: string
  /** The file that `examples` were read from. */
  readonly data: string
  readonly examples: readonly Example[]
  readonly cancelled: () => boolean
}

/** Seed of everything random in the checks. */
export const seed = 1

/** What checks work on: data, and one model at a time, which stays open for the next check that wants the same. */
export class SelftestContext implements ContextOptions {
  readonly config: SelftestConfig
  readonly folder: string
  readonly data: string
  readonly examples: readonly Example[]
  readonly cancelled: () => boolean
  #open: { readonly key: string; readonly model: OpenModel } | undefined

  constructor(options: ContextOptions) {
    this.config = options.config
    this.folder = options.folder
    this.data = options.data
    this.examples = options.examples
    this.cancelled = options.cancelled
  }

  /**
   * The model, with weights as they are when it is opened: what a check changes it must put back. No B of its adapter is zero, since A
   * would have no gradient then.
   *
   * @throws LowrankError `memory`: there is too little of it.
   */
  async model(subject: Subject): Promise<OpenModel> {
    const key = JSON.stringify(subject)
    if (this.#open?.key === key) return this.#open.model
    await this.close()
    const model = await this.#load(subject)
    this.#open = { key, model }
    for (const { name, data } of model.trainables.values()) {
      if (name.endsWith('.lora_B.weight') && data.every((value) => value === 0)) {
        fillUniform(data, -0.02, 0.02, stream(seed, `selftest ${name}`))
      }
    }
    return model
  }

  /** The options of a training run that name the model as the user did. */
  get baseOptions(): Partial<TrainConfigInput> & { readonly model: string } {
    const { data: _, ...options } = this.config
    return options
  }

  async close(): Promise<void> {
    const open = this.#open
    this.#open = undefined
    await open?.model.close()
  }

  async #load({ trained, dropout = 0, activations, folder: saved }: Subject): Promise<OpenModel> {
    const { model: folder, adapter, threads } = this.config
    const lora = {
      r: 8,
      loraAlpha: 16,
      targetModules: 'all-linear',
      loraDropout: dropout,
      bias: 'none',
      useRslora: false,
    } as const
    const prepared = await PreparedDecoder.open({
      model: folder,
      adapter: trained === 'adapter' ? (saved ?? adapter) : undefined,
      threads,
      quantization: quantizationOf(this.config),
      training: { lora: trained === 'adapter' ? lora : undefined, init: 'pretrained', seed },
    })
    let plan
    const tokenizer = await loadTokenizer(folder)
    try {
      checkVocabulary(tokenizer, prepared.config, folder)
      const { batch, seq, rows } = makeBatch(this.examples)
      const size = { batch, seq, rows: rows.length }
      // The checks need the gradients twice, and no optimizer.
      const workload = { training: size, evaluation: size, microBatches: 1, stateBytes: () => 0, keepsBest: true }
      plan = planMemory(prepared, workload, { setting: activations ?? 'auto', bound: undefined })
    } catch (error) {
      await prepared.close()
      throw error
    }
    return { ...(await loadDecoder(prepared, plan)), tokenizer }
  }
}
