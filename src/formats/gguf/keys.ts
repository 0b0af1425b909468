import { LowrankError } from '../../util/errors.ts'
import type { GgufMetadata, GgufValue } from './metadata.ts'

/** Keys that say nothing of what is computed from tokens to logits. */
const harmless = new Set([
  'vocab_size',
  'tensor_data_layout',
  'pooling_type',
  'rope.scaling.finetuned',
  // Of norms that subtract a mean, which no known architecture has; some converters write both.
  'attention.layer_norm_epsilon',
])

/**
 * The metadata about the architecture of a model: keys that begin with its name. Which of them were asked for is remembered, so that what
 * nobody knows of can be refused.
 */
export class ArchitectureKeys {
  readonly architecture: string
  readonly #metadata: GgufMetadata
  readonly #asked = new Set(harmless)

  constructor(metadata: GgufMetadata) {
    this.#metadata = metadata
    this.architecture = metadata.needed('general.architecture', metadata.text('general.architecture'))
  }

  number(key: string): number | undefined {
    return this.#metadata.number(this.#name(key))
  }

  text(key: string): string | undefined {
    return this.#metadata.text(this.#name(key))
  }

  flag(key: string): boolean | undefined {
    return this.#metadata.flag(this.#name(key))
  }

  value(key: string): GgufValue | undefined {
    return this.#metadata.get(this.#name(key))
  }

  needed(key: string): number {
    return this.#metadata.needed(this.#name(key), this.uniform(key))
  }

  /** A number, or a list that has the same one for each layer. */
  uniform(key: string): number | undefined {
    const value = this.value(key)
    if (typeof value !== 'object') return this.number(key)
    const [first, ...others] = new Set(this.#metadata.numbers(this.#name(key)))
    if (others.length > 0) this.refuse(key, 'differs from layer to layer, which is not supported')
    return first
  }

  refuse(key: string, what: string): never {
    throw new LowrankError('model', `${this.#metadata.path}: metadata ${this.architecture}.${key} ${what}`, {
      hint: 'Name the folder of the model that the file was made from.',
    })
  }

  /** @throws LowrankError `model`: a key that was not asked for, with a value that may mean something. */
  refuseOthers(): void {
    const prefix = `${this.architecture}.`
    for (const key of this.#metadata.keys) {
      const own = key.slice(prefix.length)
      if (!key.startsWith(prefix) || this.#asked.has(own) || isNeutral(this.#metadata.get(key))) continue
      const value = this.#metadata.get(key)
      const shown = typeof value === 'object' ? 'a list' : JSON.stringify(String(value).slice(0, 60))
      this.refuse(own, `is ${shown}, which is not supported: the model would be computed without it`)
    }
  }

  #name(key: string): string {
    this.#asked.add(key)
    return `${this.architecture}.${key}`
  }
}

function isNeutral(value: GgufValue | undefined): boolean {
  if (typeof value !== 'object') return value === undefined || !value || value === 'none'
  return Array.from(value as ArrayLike<GgufValue>).every(isNeutral)
}
