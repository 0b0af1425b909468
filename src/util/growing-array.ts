/** Numbers that are added one after the other; room for them is doubled where it ends. */
export class GrowingArray<A extends Uint32Array | Float64Array> {
  readonly #type: new (length: number) => A
  #room: A
  #length = 0

  constructor(type: new (length: number) => A) {
    this.#type = type
    this.#room = new type(1024)
  }

  get length(): number {
    return this.#length
  }

  add(...values: readonly number[]): void {
    if (this.#length + values.length > this.#room.length) {
      const larger = new this.#type(2 * this.#room.length)
      larger.set(this.#room)
      this.#room = larger
    }
    this.#room.set(values, this.#length)
    this.#length += values.length
  }

  /** All of them, until the next one is added. */
  get values(): A {
    return this.#room.subarray(0, this.#length) as A
  }
}
