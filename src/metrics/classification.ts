/** Of an example, the label that was expected and the one that the model gave, which may be none of them. */
export interface Labelled {
  readonly expected: string
  readonly predicted: string
}

/** How often each label was taken for which. */
export interface Confusion {
  readonly labels: readonly string[]
  /** [expected][predicted], in the order of `labels`. */
  readonly counts: readonly (readonly number[])[]
  /** Of each expected label, how often what the model gave was no label. */
  readonly other: readonly number[]
}

/** Counts predictions by what was expected; what was expected is one of the labels. */
export function confusionOf(examples: readonly Labelled[], labels: readonly string[]): Confusion {
  const place = new Map(labels.map((label, i) => [label, i]))
  const counts = labels.map(() => labels.map(() => 0))
  const other = labels.map(() => 0)
  for (const { expected, predicted } of examples) {
    const [row, column] = [place.get(expected), place.get(predicted)]
    if (row === undefined) continue
    if (column === undefined) other[row]!++
    else counts[row]![column]!++
  }
  return { labels, counts, other }
}

/** The share of right predictions, from 0 to 1. */
export function accuracyOf({ counts, other }: Confusion): number {
  const right = counts.reduce((total, row, i) => total + row[i]!, 0)
  const all = counts.flat().reduce(add, 0) + other.reduce(add, 0)
  return all === 0 ? 0 : right / all
}

/**
 * The mean over the labels of their F1, from 0 to 1, as scikit-learn's `f1_score(average="macro", labels=labels, zero_division=0)`: a label
 * that neither was expected nor given counts as 0, so only name labels that there are.
 */
export function macroF1Of({ counts, other }: Confusion): number {
  const scores = counts.map((row, i) => {
    const expected = row.reduce(add, 0) + other[i]!
    const given = counts.reduce((total, one) => total + one[i]!, 0)
    return expected + given === 0 ? 0 : (2 * row[i]!) / (expected + given)
  })
  return scores.reduce(add, 0) / scores.length
}

function add(total: number, value: number): number {
  return total + value
}
