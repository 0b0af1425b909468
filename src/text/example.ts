import type { Place } from './readers/index.ts'

/** A tokenized training example. */
export interface Example {
  /** Token ids, [tokens]. */
  readonly ids: Int32Array
  /** [tokens]: 1 where the token is a label, that is, predicted from those before it and counted in the loss. */
  readonly labelMask: Uint8Array
  /** Where it comes from: the line of its file, or the row, from 1. */
  readonly line: number
  /** Whether that is a row, of what has no lines. */
  readonly unit?: Place['unit'] | undefined
  /** The file, where there are several. */
  readonly path?: string | undefined
  /** `ids.length` and the number of labels, where they are known without reading the tokens. */
  readonly tokens?: number
  readonly labels?: number
}

/** Examples of which each is made when it is asked for; an array of them is one of these. */
export type Examples = Pick<readonly Example[], 'length' | 'at' | 'slice'>

/** How many tokens an example has. */
export function lengthOf(example: Example): number {
  return example.tokens ?? example.ids.length
}

/** How many labels it has. Nothing predicts the first token, so that is none. */
export function labelsOf(example: Example): number {
  if (example.labels !== undefined) return example.labels
  const { labelMask } = example
  let count = 0
  for (let t = 1; t < labelMask.length; t++) count += labelMask[t]!
  return count
}

/*
 * A marked id is a token id that says whether it is a label: the highest bit, which no id has. So ids and mask are one array, in memory,
 * between processes, and on disk.
 */

const mark = 1 << 31

export function idOf(marked: number): number {
  return marked & ~mark
}

export function isLabel(marked: number): boolean {
  return marked < 0
}

export function idsOf(marked: Int32Array): Int32Array {
  return marked.map((id) => id & ~mark)
}

export function labelMaskOf(marked: Int32Array): Uint8Array {
  return Uint8Array.from(marked, (id) => (id < 0 ? 1 : 0))
}

/** Marks the tokens from `first` on. */
export function markFrom(ids: Int32Array, first: number): Int32Array {
  for (let t = first; t < ids.length; t++) ids[t] = ids[t]! | mark
  return ids
}
