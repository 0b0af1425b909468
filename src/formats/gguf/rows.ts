/**
 * Puts rows of bytes in another order, head by head, in place. llama.cpp rotates neighbouring channels of a head, transformers those of its
 * two halves: a file has the rows of the halves by turns, a hub model one half after the other. Rows are whole numbers of blocks.
 */
export function reorderRows(bytes: Uint8Array, rows: number, heads: number, order: 'file' | 'hub'): void {
  const [width, headRows] = [bytes.length / rows, rows / heads]
  const half = headRows / 2
  for (let head = 0; head < heads; head++) {
    const own = bytes.subarray(head * headRows * width, (head + 1) * headRows * width)
    const given = own.slice()
    for (let row = 0; row < headRows; row++) {
      // Where a row of a hub model is in the file.
      const stored = row < half ? 2 * row : 2 * (row - half) + 1
      const [from, to] = order === 'hub' ? [stored, row] : [row, stored]
      own.set(given.subarray(from * width, (from + 1) * width), to * width)
    }
  }
}
