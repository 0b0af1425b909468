/** Places of the numbers that two threads share. */
const [cancelled, working, native, halted, taken] = [0, 1, 2, 3, 4] as const

/**
 * What the caller's thread and a thread that computes say to each other while neither can read messages: the one since it is in native
 * code for seconds, the other since its process ends. A thread that is ended within native code takes the process with it, by
 * `std::terminate`: so that is waited for, and no other native call begins.
 */
export class SharedState {
  readonly memory: SharedArrayBuffer
  readonly #numbers: Int32Array

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(5 * Int32Array.BYTES_PER_ELEMENT)) {
    this.memory = memory
    this.#numbers = new Int32Array(memory)
  }

  /** Whether what is computed is asked to end early. */
  get cancelled(): boolean {
    return Atomics.load(this.#numbers, cancelled) === 1
  }

  set cancelled(value: boolean) {
    this.#set(cancelled, value ? 1 : 0)
  }

  /** Whether a task is under way. */
  set working(value: boolean) {
    this.#set(working, value ? 1 : 0)
  }

  /** Events that the caller has asked for. */
  get taken(): number {
    return Atomics.load(this.#numbers, taken)
  }

  set taken(count: number) {
    this.#set(taken, count)
  }

  /** Runs native code: in the thread that computes. Once `halt` was called it does not return, nor begin. */
  async inNative<T>(call: () => Promise<T>): Promise<T> {
    Atomics.add(this.#numbers, native, 1)
    this.#stopIfHalted()
    try {
      return await call()
    } finally {
      this.#stopIfHalted()
      this.#leave()
    }
  }

  /**
   * Ends the work of the other thread, which then may be ended: asks it to end early, waits up to `patience` ms (a run saves what it has),
   * and up to `longest` ms until it has left native code.
   */
  halt({ patience, longest }: { readonly patience: number; readonly longest: number }): void {
    this.cancelled = true
    this.#waitForZero(working, patience)
    this.#set(halted, 1)
    this.#waitForZero(native, longest)
  }

  #stopIfHalted(): void {
    if (Atomics.load(this.#numbers, halted) === 0) return
    this.#leave()
    // For ever: the end of the process ends it too.
    Atomics.wait(this.#numbers, halted, 1)
  }

  #leave(): void {
    Atomics.sub(this.#numbers, native, 1)
    Atomics.notify(this.#numbers, native)
  }

  #set(place: number, value: number): void {
    Atomics.store(this.#numbers, place, value)
    Atomics.notify(this.#numbers, place)
  }

  #waitForZero(place: number, milliseconds: number): void {
    const end = performance.now() + milliseconds
    for (;;) {
      const [value, left] = [Atomics.load(this.#numbers, place), end - performance.now()]
      if (value === 0 || left <= 0) return
      Atomics.wait(this.#numbers, place, value, left)
    }
  }
}
