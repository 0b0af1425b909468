/**
 * The merges of a vocabulary that has scores: every way to make a token of two others, the best tokens first, and of one token's ways those
 * with the longer parts. It is what transformers makes of a SentencePiece model, in the same order.
 */
export function mergesOf(ids: ReadonlyMap<string, number>, scoreOf: (id: number) => number): [string, string][] {
  const found: Merge[] = []
  for (const [token, id] of ids) {
    const score = scoreOf(id)
    const total = characters(token)
    const own: Merge[] = []
    let [units, length] = [0, 0]
    for (const character of token) {
      units += character.length
      length++
      if (units === token.length) break
      const [left, right] = [token.slice(0, units), token.slice(units)]
      const [leftId, rightId] = [ids.get(left), ids.get(right)]
      if (leftId === undefined || rightId === undefined) continue
      own.push({ left, right, leftId, rightId, score, length, rest: total - length })
    }
    own.sort((a, b) => a.leftId - b.leftId || a.rightId - b.rightId)
    found.push(...own)
  }
  found.sort((a, b) => b.score - a.score || b.length - a.length || b.rest - a.rest)
  return found.map(({ left, right }) => [left, right])
}

interface Merge {
  readonly left: string
  readonly right: string
  readonly leftId: number
  readonly rightId: number
  readonly score: number
  /** Characters of the left part, and of the right one. */
  readonly length: number
  readonly rest: number
}

function characters(text: string): number {
  let count = 0
  for (const _ of text) count++
  return count
}
