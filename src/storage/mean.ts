/** Partial sums kept side by side: four of PyTorch's vectors of eight floats. */
const vector = 8
const lanes = 4 * vector
const levels = 4

/**
 * The mean of f32 values, bit for bit PyTorch's `mean()` on the CPU with one thread (ATen/native/cpu/SumKernel.cpp:
 * cascade summation over 32 lanes). With several threads PyTorch adds from 32,768 values on the sums of one part per
 * thread, which may differ in the last bit.
 */
export function mean(values: Float32Array): number {
  return Math.fround(sum(values) / values.length)
}

function sum(values: Float32Array): number {
  const width = values.length < vector ? 1 : vector
  const used = Math.floor(values.length / width) * width
  const partial = cascade(values.subarray(0, used - (used % (4 * width))), 4 * width)
  for (let i = used - (used % (4 * width)); i < used; i++) partial[i % width]! += values[i]!
  for (let lane = width; lane < 4 * width; lane++) partial[lane % width]! += partial[lane]!

  let total = width === 1 ? partial[0]! : 0
  for (let i = used; i < values.length; i++) total = Math.fround(total + values[i]!)
  if (width > 1) for (let lane = 0; lane < width; lane++) total = Math.fround(total + partial[lane]!)
  return total
}

/** Sums of the columns of `rows`, [length / width, width]: runs of rows are added to runs of runs, on four levels. */
function cascade(rows: Float32Array, width: number): Float32Array {
  const size = rows.length / width
  const power = Math.max(4, Math.floor(Math.ceil(Math.log2(Math.max(size, 1))) / levels))
  const run = 2 ** power
  const sums = Array.from({ length: levels }, () => new Float32Array(lanes))
  const [finest = new Float32Array(lanes)] = sums
  for (let row = 0; row < size; row++) {
    for (let lane = 0; lane < width; lane++) finest[lane]! += rows[row * width + lane]!
    // A level is handed up when it is complete.
    for (let level = 1, done = row + 1; level < levels && done % run === 0; level++, done /= run) {
      const below = sums[level - 1]!
      const above = sums[level]!
      for (let lane = 0; lane < width; lane++) above[lane]! += below[lane]!
      below.fill(0)
    }
  }
  for (const level of sums.slice(1)) for (let lane = 0; lane < width; lane++) finest[lane]! += level[lane]!
  return finest
}
