import { internalError } from '../util/errors.ts'

/**
 * A dimension: a number, or a product of symbols with an optional factor in canonical form (`seq`, `3*seq`,
 * `batch*seq`). Two dimensions are equal exactly when they are `===`. The symbol `1|batch` is 1 or as large as `batch`, which a run
 * decides: it broadcasts to `batch`.
 */
export type Dim = number | string

export type Shape = readonly Dim[]

/** What the symbols of a program stand for in one run. */
export type DimValues = Readonly<Record<string, number>>

/** The product of dimensions in canonical form: factor first, then the symbols in alphabetical order. */
export function product(dims: Shape): Dim {
  let factor = 1
  const symbols: string[] = []
  for (const dim of dims) {
    for (const part of String(dim).split('*')) {
      if (isFactor(part)) factor *= Number(part)
      else symbols.push(part)
    }
  }
  if (symbols.length === 0 || factor === 0) return factor
  symbols.sort()
  return (factor === 1 ? symbols : [String(factor), ...symbols]).join('*')
}

/** The symbols that a dimension is a product of. */
export function symbolsOf(dim: Dim): readonly string[] {
  return String(dim)
    .split('*')
    .filter((part) => !isFactor(part))
}

function isFactor(part: string): boolean {
  return /^\d+$/.test(part)
}

/** The number that a dimension is when its symbols are `values`. */
export function dimValue(dim: Dim, values: DimValues): number {
  if (typeof dim === 'number') return dim
  return dim.split('*').reduce((total, part) => {
    const value = isFactor(part) ? Number(part) : values[part]
    if (value === undefined) throw internalError(`dimension "${part}" has no value`)
    return total * value
  }, 1)
}

/** Finds the symbol of a dimension that has no value yet from the number that the dimension is, where it is the only one. */
export function solveDim(dim: Dim, size: number, values: Record<string, number>): void {
  const parts = String(dim).split('*')
  const unknown = symbolsOf(dim).filter((symbol) => values[symbol] === undefined)
  const [symbol] = unknown
  if (symbol === undefined || unknown.length > 1) return
  const value = size / dimValue(product(parts.filter((part) => part !== symbol)), values)
  if (Number.isInteger(value)) values[symbol] = value
}

/** How many elements a tensor of this shape has. */
export function elementCount(shape: Shape, values: DimValues): number {
  return shape.reduce<number>((total, dim) => total * dimValue(dim, values), 1)
}

/** The shape of an elementwise result (numpy's broadcasting rule), or undefined when the shapes do not fit. */
export function broadcast(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length)
  const out: Dim[] = []
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1
    const y = b[b.length - rank + i] ?? 1
    const [xStretches, yStretches] = [x === 1 || x === `1|${y}`, y === 1 || y === `1|${x}`]
    if (x !== y && !xStretches && !yStretches) return undefined
    out.push(xStretches ? y : x)
  }
  return out
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i])
}

export function showShape(shape: Shape): string {
  return `[${shape.join(', ')}]`
}
