/** Element `i` of the values that `uniform.py` makes: [-0.5, 0.5), f32, of a hash. */
export function uniform(i: number, salt: number): number {
  let x = ((multiply(i, 2654435761) + salt * 40503 * 65537) % 2 ** 32) >>> 0
  x = multiply(x ^ (x >>> 15), 2246822519)
  return Math.fround(((x ^ (x >>> 13)) >>> 0) / 2 ** 32 - 0.5)
}

function multiply(x: number, y: number): number {
  return Math.imul(x, y) >>> 0
}
