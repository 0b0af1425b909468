/*
 * Random numbers that are a pure function of what they are for. Philox4x32-10 turns (key, counter) into four words with
 * no state in between, so step k of a run can be recomputed without running steps 0 to k-1.
 * Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */

/**
 * A sequence of random words, named by (seed, purpose, integers). It has no position: each function below reads it from
 * its start, so give each use a stream of its own.
 */
export interface Stream {
  readonly key: readonly [number, number]
  /** Upper half of the counter; the lower half counts blocks of four words. */
  readonly counter: readonly [number, number]
}

/** One Philox4x32-10 block: four uint32 written to the start of `out`. */
export function philox(
  key: readonly [number, number],
  counter: readonly [number, number, number, number],
  out: Uint32Array,
): void {
  philoxBlock(out, 0, key[0], key[1], counter[0], counter[1], counter[2], counter[3])
}

/**
 * The stream of a purpose. Equal arguments give the same stream; any difference gives an unrelated one.
 * `seed` and `integers` are safe integers.
 */
export function stream(seed: number, purpose: string, ...integers: number[]): Stream {
  // CBC-MAC with Philox as the block function: a word goes into the state, the state through Philox. Lengths come
  // first, so that no two argument lists make the same words.
  const words = [purpose.length, integers.length]
  for (let i = 0; i < purpose.length; i++) words.push(purpose.charCodeAt(i))
  for (const integer of integers) words.push(integer >>> 0, high32(integer))
  const state = new Uint32Array(4)
  for (const word of words) {
    philoxBlock(state, 0, seed, high32(seed), state[0]! ^ word, state[1]!, state[2]!, state[3]!)
  }
  return { key: [state[0]!, state[1]!], counter: [state[2]!, state[3]!] }
}

/** `n` numbers in [0, 1), 53 random bits each. */
export function uniform(source: Stream, n: number): Float64Array {
  const out = new Float64Array(n)
  forWords(source, 2 * n, (words, start, count) => {
    for (let i = 0; i < count; i += 2) {
      out[(start + i) / 2] = ((words[i]! >>> 5) * 67108864 + (words[i + 1]! >>> 6)) * 2 ** -53
    }
  })
  return out
}

/** A random permutation of 0 .. n-1 (Fisher-Yates). */
export function shuffled(n: number, source: Stream): Int32Array {
  const order = new Int32Array(n)
  for (let i = 0; i < n; i++) order[i] = i
  const draws = uniform(source, n)
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(draws[i]! * (i + 1))
    const swap = order[i]!
    order[i] = order[j]!
    order[j] = swap
  }
  return order
}

/** Fills `out` with numbers evenly spread over [low, high]. */
export function fillUniform(out: Float32Array, low: number, high: number, source: Stream): void {
  const scale = (high - low) * 2 ** -32
  forWords(source, out.length, (words, start, count) => {
    for (let i = 0; i < count; i++) out[start + i] = low + words[i]! * scale
  })
}

/** Fills `out` with normally distributed numbers (Box-Muller). */
export function fillNormal(out: Float32Array, mean: number, std: number, source: Stream): void {
  forWords(source, out.length + (out.length % 2), (words, start, count) => {
    for (let i = 0; i < count; i += 2) {
      const radius = std * Math.sqrt(-2 * Math.log((words[i]! + 1) * 2 ** -32))
      const angle = 2 * Math.PI * (words[i + 1]! * 2 ** -32)
      out[start + i] = mean + radius * Math.cos(angle)
      // Past the end for the last number of an odd length: typed arrays ignore that write.
      out[start + i + 1] = mean + radius * Math.sin(angle)
    }
  })
}

/**
 * Fills `out` with 1 (keep, with probability 1-p) and 0 (drop, with probability p). Only the rarer of the two is drawn:
 * the gaps between its places are geometrically distributed, so that the cost is that of p * length draws.
 */
export function fillDropoutMask(out: Uint8Array, p: number, source: Stream): void {
  const rare = Math.min(p, 1 - p)
  const rareValue = p <= 0.5 ? 0 : 1
  out.fill(1 - rareValue)
  if (rare <= 0) return
  const scale = 1 / Math.log1p(-rare)
  const words = new Uint32Array(chunkWords)
  let block = 0
  for (let place = -1; ; block += chunkWords / 4) {
    fillWords(words, chunkWords, source, block)
    for (let i = 0; i < chunkWords; i++) {
      place += 1 + Math.floor(Math.log((words[i]! + 1) * 2 ** -32) * scale)
      if (place >= out.length) return
      out[place] = rareValue
    }
  }
}

const chunkWords = 1024

/** Hands the first `total` words of a stream to `use`, in chunks of an even number of words. */
function forWords(source: Stream, total: number, use: (words: Uint32Array, start: number, count: number) => void) {
  const words = new Uint32Array(Math.min(chunkWords, Math.ceil(total / 4) * 4))
  for (let start = 0; start < total; start += chunkWords) {
    const count = Math.min(chunkWords, total - start)
    fillWords(words, count, source, start / 4)
    use(words, start, count)
  }
}

function fillWords(words: Uint32Array, count: number, source: Stream, firstBlock: number): void {
  const [key0, key1] = source.key
  const [counter2, counter3] = source.counter
  for (let i = 0; i < count; i += 4) {
    const block = firstBlock + i / 4
    philoxBlock(words, i, key0, key1, block, high32(block), counter2, counter3)
  }
}

/** Upper 32 bits of a safe integer in two's complement. */
function high32(integer: number): number {
  return Math.floor(integer / 4294967296) >>> 0
}

function philoxBlock(
  out: Uint32Array,
  at: number,
  key0: number,
  key1: number,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
): void {
  for (let round = 0; round < 10; round++) {
    // 0xd2511f53 * c0 and 0xcd9e8d57 * c2, 64 bits each, from 16-bit halves.
    const a = c0 & 0xffff
    const b = c0 >>> 16
    const lowMiddle0 = 0x1f53 * b + ((0x1f53 * a) >>> 16)
    const middle0 = 0xd251 * a + (lowMiddle0 & 0xffff)
    const high0 = 0xd251 * b + (lowMiddle0 >>> 16) + (middle0 >>> 16)
    const c = c2 & 0xffff
    const d = c2 >>> 16
    const lowMiddle1 = 0x8d57 * d + ((0x8d57 * c) >>> 16)
    const middle1 = 0xcd9e * c + (lowMiddle1 & 0xffff)
    const high1 = 0xcd9e * d + (lowMiddle1 >>> 16) + (middle1 >>> 16)
    const next0 = high1 ^ c1 ^ key0
    const next2 = high0 ^ c3 ^ key1
    c1 = Math.imul(0xcd9e8d57, c2)
    c3 = Math.imul(0xd2511f53, c0)
    c0 = next0
    c2 = next2
    key0 = (key0 + 0x9e3779b9) | 0
    key1 = (key1 + 0xbb67ae85) | 0
  }
  out[at] = c0
  out[at + 1] = c1
  out[at + 2] = c2
  out[at + 3] = c3
}
