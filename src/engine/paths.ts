/** Where the examples of a micro-batch lie. */
export interface Positions {
  readonly batch: number
  readonly seq: number
  /** Flat positions b * seq + t at which the own tokens of examples begin, ascending; each row begins with one. */
  readonly starts: Int32Array
  /** How many tokens each of them has, those included that it shares. */
  readonly lengths: Int32Array
  /** How many of its first tokens each shares with the one before it in its row, and sees there; none by default. */
  readonly shared?: Int32Array | undefined
}

/** Whether rows hold several examples. */
export function isPacked({ batch, starts }: Positions): boolean {
  return starts.length > batch
}

/** Whether examples share what they begin with, so that a row is a tree. */
export function isTree({ shared }: Positions): boolean {
  return shared?.some((tokens) => tokens > 0) === true
}

/** `length` places of a row, from `place` on, that hold the positions of an example from `position` on. */
interface Run {
  readonly place: number
  readonly position: number
  readonly length: number
}

/** Where the positions of an example lie in its row: what it shares, place by place, and last its own. */
export type Path = readonly Run[]

/** The paths of the examples of each row, or, where all hold one example and a mask serves them all, of one row. */
export function pathsOf(positions: Positions): Path[][] {
  const { batch, seq, starts, shared } = positions
  if (!isPacked(positions)) return [[[{ place: 0, position: 0, length: seq }]]]
  const rows: Path[][] = Array.from({ length: batch }, () => [])
  starts.forEach((start, i) => {
    const paths = rows[Math.floor(start / seq)]!
    const position = shared?.[i] ?? 0
    const own = { place: start % seq, position, length: (starts[i + 1] ?? batch * seq) - start }
    paths.push([...beginning(paths.at(-1) ?? [], position), own])
  })
  return rows
}

/** The first `positions` positions of a path. */
function beginning(path: Path, positions: number): Run[] {
  return path
    .filter(({ position }) => position < positions)
    .map((run) => ({ ...run, length: Math.min(run.length, positions - run.position) }))
}

/** The queries of a path that lie from `start` to `end`: their places, and the first position of the path that each sees. */
export function* queriesOf(
  path: Path,
  { start, end, window }: { readonly start: number; readonly end: number; readonly window: number },
): Generator<{ readonly query: number; readonly first: number }> {
  const own = path.at(-1)!
  const last = Math.min(end, own.place + own.length)
  for (let query = Math.max(start, own.place); query < last; query++) {
    yield { query, first: own.position + query - own.place - window + 1 }
  }
}

/** Fills what the query at a place does not see, of its path the positions before `first`, and all that is none of it, up to the end of `mask`. */
export function fillUnseen(mask: Float32Array, path: Path, query: number, first: number, value: number): void {
  let end = 0
  for (const { place, position, length } of path) {
    const begin = place + Math.min(length, Math.max(0, first - position))
    mask.fill(value, end, begin)
    end = Math.min(place + length, query + 1)
  }
  mask.fill(value, end)
}

/** The longest run of places before `start` that no query from there to `end` sees; of length 0 where there is none. */
export function gapBefore(
  rows: readonly (readonly Path[])[],
  { start, end, window }: { readonly start: number; readonly end: number; readonly window: number },
): { readonly start: number; readonly end: number } {
  const seen = new Uint8Array(start)
  for (const path of rows.flat()) {
    // The first of its queries sees most of what lies before.
    const [query] = queriesOf(path, { start, end, window })
    if (query === undefined) continue
    for (const { place, position, length } of path) {
      seen.fill(1, place + Math.min(length, Math.max(0, query.first - position)), place + length)
    }
  }
  let gap = { start: 0, end: 0 }
  for (let from = seen.indexOf(0); from >= 0;) {
    const next = seen.indexOf(1, from)
    const to = next < 0 ? start : next
    if (to - from > gap.end - gap.start) gap = { start: from, end: to }
    from = next < 0 ? -1 : seen.indexOf(0, next)
  }
  return gap
}
