/** Elements of a tensor of this shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((total, size) => total * size, 1)
}
