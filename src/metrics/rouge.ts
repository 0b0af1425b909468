/** What two texts have in common, as ROUGE measures it (Lin 2004). */
export interface RougeScores {
  readonly rouge1: number
  readonly rouge2: number
  readonly rougeL: number
}

/**
 * F-measures from 0 to 1 of a text beside the one that was expected: common words, common pairs of words, the longest common subsequence.
 * As the Python package `rouge-score` computes them with `use_stemmer=False`: words are runs of the letters a to z and digits, in lower case,
 * so that texts in other scripts have none, and score 0. The Porter stemmer, which that package offers beside, is left out.
 */
export function rouge(expected: string, completion: string): RougeScores {
  const [target, made] = [wordsOf(expected), wordsOf(completion)]
  return { rouge1: ofGrams(target, made, 1), rouge2: ofGrams(target, made, 2), rougeL: ofSubsequence(target, made) }
}

function wordsOf(text: string): readonly string[] {
  return text.toLowerCase().match(/[a-z0-9]+/g) ?? []
}

function ofGrams(target: readonly string[], made: readonly string[], n: number): number {
  const [wanted, found] = [gramsOf(target, n), gramsOf(made, n)]
  let common = 0
  for (const [gram, times] of wanted) common += Math.min(times, found.get(gram) ?? 0)
  return fMeasure(common, { target: target.length - n + 1, made: made.length - n + 1 })
}

/** How often each run of `n` words comes. */
export function gramsOf(words: readonly string[], n: number): ReadonlyMap<string, number> {
  const grams = new Map<string, number>()
  for (let start = 0; start + n <= words.length; start++) {
    // No word has a blank.
    const gram = words.slice(start, start + n).join(' ')
    grams.set(gram, (grams.get(gram) ?? 0) + 1)
  }
  return grams
}

function ofSubsequence(target: readonly string[], made: readonly string[]): number {
  return fMeasure(commonSubsequence(target, made), { target: target.length, made: made.length })
}

/** Length of the longest common subsequence. One row of the table is kept: the time is the product of both lengths, the memory one of them. */
function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  const lengths = new Uint32Array(b.length + 1)
  for (const word of a) {
    let diagonal = 0
    for (const [j, other] of b.entries()) {
      const above = lengths[j + 1]!
      lengths[j + 1] = word === other ? diagonal + 1 : Math.max(above, lengths[j]!)
      diagonal = above
    }
  }
  return lengths[b.length]!
}

function fMeasure(common: number, lengths: { readonly target: number; readonly made: number }): number {
  if (common === 0) return 0
  const [precision, recall] = [common / lengths.made, common / lengths.target]
  return (2 * precision * recall) / (precision + recall)
}
