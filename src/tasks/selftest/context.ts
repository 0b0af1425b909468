import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Quantization, QuantizationOptions, TrainConfig, TrainConfigInput } from '../../config/index.ts'
import { type OpenDecoder, PreparedDecoder } from '../../session/decoder.ts'
import { editJson } from '../../formats/json-edit.ts'
import { planMemory } from '../../session/plan.ts'
import { makeBatch } from '../../text/batches.ts'
import type { Example } from '../../text/example.ts'
import { fillUniform, stream } from '../../util/random.ts'

/** What a check trains, and how. */
export interface Subject {
  /** An adapter (that of the user, or a new one on all linear layers), or every weight. */
  readonly trained: 'adapter' | 'all'
  /** Of the adapter, also where it is that of the user; 0 by default. */
  readonly dropout?: number
  readonly activations?: 'keep' | 'recompute'
  /** Folder of the adapter, where it is not that of the user, which is taken as it is. */
  readonly folder?: string
}

export interface SelftestConfig
  extends Pick<TrainConfig, 'model' | 'adapter' | 'threads' | 'maxLength'>, QuantizationOptions {
  /** Data to check with; texts of our own where there is none. */
  readonly data?: string | undefined
  /** What was trained, where it says how the base is held. */
  readonly method?: TrainConfig['method'] | undefined
}

interface ContextOptions {
  readonly config: SelftestConfig
  /** How the base is held. */
  readonly quantization: Quantization | undefined
  /** Temporary; for what a check writes. */
  readonly folder: string
  /** The file that `examples` were read from. */
  readonly data: string
  readonly examples: readonly Example[]
  readonly cancelled: () => boolean
}

/** Seed of everything random in the checks. */
export const seed = 1

/** An adapter whose B are all smaller has hardly been trained. */
const smallB = 0.005

/** What checks work on: data, and one model at a time, which stays open for the next check that wants the same. */
export class SelftestContext implements ContextOptions {
  readonly config: SelftestConfig
  readonly quantization: Quantization | undefined
  readonly folder: string
  readonly data: string
  readonly examples: readonly Example[]
  readonly cancelled: () => boolean
  #open: { readonly key: string; readonly model: OpenDecoder } | undefined

  constructor(options: ContextOptions) {
    this.config = options.config
    this.quantization = options.quantization
    this.folder = options.folder
    this.data = options.data
    this.examples = options.examples
    this.cancelled = options.cancelled
  }

  /**
   * The model, with weights as they are when it is opened: what a check changes it must put back. A B that is zero or nearly so is
   * replaced: A would have hardly a gradient.
   *
   * @throws LowrankError `memory`: there is too little of it.
   */
  async model(subject: Subject): Promise<OpenDecoder> {
    const key = JSON.stringify(subject)
    if (this.#open?.key === key) return this.#open.model
    await this.close()
    const model = await this.#load(subject)
    this.#open = { key, model }
    for (const { name, data } of model.trainables.values()) {
      if (name.endsWith('.lora_B.weight') && data.every((value) => Math.abs(value) < smallB)) {
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

  async #load({ trained, dropout = 0, activations, folder: saved }: Subject): Promise<OpenDecoder> {
    const { model: folder, threads } = this.config
    const adapter = trained === 'adapter' ? (saved ?? (await this.#adapter(dropout))) : undefined
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
      adapter,
      threads,
      quantization: this.quantization,
      training: { lora: trained === 'adapter' ? lora : undefined, init: 'pretrained', seed },
    })
    try {
      const { batch, seq, rows } = makeBatch(this.examples)
      const size = { batch, seq, rows: rows.length }
      // The checks need the gradients twice, and no optimizer.
      const workload = {
        training: size,
        evaluation: size,
        microBatches: 1,
        stateBytes: () => 0,
        keepsBest: true,
        data: 0,
      }
      const plan = planMemory(prepared, workload, { setting: activations ?? 'auto', bound: undefined })
      return await prepared.load(plan)
    } catch (error) {
      await prepared.close()
      throw error
    }
  }

  /** The user's adapter with another dropout: masks depend on how a step is split, which must make no difference where it is checked. */
  async #adapter(dropout: number): Promise<string | undefined> {
    const { adapter } = this.config
    if (adapter === undefined) return undefined
    const folder = join(this.folder, `adapter-${dropout}`)
    await mkdir(folder, { recursive: true })
    for (const name of ['adapter_config.json', 'adapter_model.safetensors']) {
      await copyFile(join(adapter, name), join(folder, name))
    }
    const path = join(folder, 'adapter_config.json')
    await writeFile(path, editJson(await readFile(path, 'utf8'), { lora_dropout: dropout }))
    return folder
  }
}
