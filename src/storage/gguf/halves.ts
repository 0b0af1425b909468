import { halfValues } from '../../util/dtype.ts'

/** Numbers in half precision by their bits. */
export const halves = halfValues()

/** The number in half precision at a place: its low byte comes first. */
export function halfAt(bytes: Uint8Array, at: number): number {
  return halves[bytes[at]! | (bytes[at + 1]! << 8)]!
}
