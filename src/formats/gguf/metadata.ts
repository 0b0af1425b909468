import { LowrankError } from '../../util/errors.ts'

/** A value of the metadata. Arrays of numbers are typed, and 64-bit integers that a number cannot hold exactly are bigints. */
export type GgufValue = string | number | bigint | boolean | GgufArray
export type GgufArray =
  | readonly string[]
  | readonly boolean[]
  | readonly GgufValue[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array

/** What a file says of itself, by key. Each of the readers gives undefined where the key is not there, and refuses another type by name. */
export class GgufMetadata {
  readonly path: string
  readonly #values: ReadonlyMap<string, GgufValue>

  constructor(path: string, values: ReadonlyMap<string, GgufValue>) {
    this.path = path
    this.#values = values
  }

  get keys(): readonly string[] {
    return [...this.#values.keys()]
  }

  has(key: string): boolean {
    return this.#values.has(key)
  }

  get(key: string): GgufValue | undefined {
    return this.#values.get(key)
  }

  text(key: string): string | undefined {
    return this.#typed(key, 'a text', (value) => typeof value === 'string')
  }

  number(key: string): number | undefined {
    return this.#typed(key, 'a number', (value) => typeof value === 'number')
  }

  flag(key: string): boolean | undefined {
    return this.#typed(key, 'true or false', (value) => typeof value === 'boolean')
  }

  /** A whole number of at least 0. */
  count(key: string): number | undefined {
    return this.#typed(
      key,
      'a count',
      (value): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0,
    )
  }

  texts(key: string): readonly string[] | undefined {
    const isTexts = (value: GgufValue): value is readonly string[] =>
      Array.isArray(value) && value.every((one) => typeof one === 'string')
    return this.#typed(key, 'a list of texts', isTexts)
  }

  numbers(key: string): readonly number[] | undefined {
    const value = this.#values.get(key)
    if (value === undefined) return undefined
    if (Array.isArray(value) && value.length === 0) return []
    const isNumbers = ArrayBuffer.isView(value) && !(value instanceof BigUint64Array || value instanceof BigInt64Array)
    return isNumbers ? Array.from(value) : this.#refuse(key, 'a list of numbers', value)
  }

  flags(key: string): readonly boolean[] | undefined {
    const isFlags = (value: GgufValue): value is readonly boolean[] =>
      Array.isArray(value) && value.every((one) => typeof one === 'boolean')
    return this.#typed(key, 'a list of true and false', isFlags)
  }

  /** A value that must be there. */
  needed<T>(key: string, value: T | undefined): T {
    if (value !== undefined) return value
    throw new LowrankError('model', `${this.path}: the metadata has no ${key}`, {
      hint: 'The file was written by an old or another converter: convert the model again with that of llama.cpp.',
    })
  }

  #typed<T extends GgufValue>(key: string, what: string, is: (value: GgufValue) => value is T): T | undefined {
    const value = this.#values.get(key)
    return value === undefined || is(value) ? value : this.#refuse(key, what, value)
  }

  #refuse(key: string, what: string, value: GgufValue): never {
    const found = typeof value === 'object' ? `a list of ${value.length}` : JSON.stringify(String(value).slice(0, 60))
    throw new LowrankError('model', `${this.path}: metadata ${key} is ${found}; ${what} is expected`)
  }
}
