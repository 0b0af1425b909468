/** Of the trials that are judged, one in so many goes on; those that do take so many times the steps. */
const eta = 3

/**
 * The steps at which trials are judged: each so many times the one before, the last the end of the run. All are multiples of the first, so
 * that one setting of `evalSteps` and `saveSteps` meets them.
 */
export function rungsOf(steps: number, trials: number): number[] {
  let rungs = 1
  while (eta ** (rungs - 1) < trials && Math.floor(steps / eta ** rungs) >= 1 && rungs < 3) rungs++
  const first = Math.max(1, Math.floor(steps / eta ** (rungs - 1)))
  return Array.from({ length: rungs }, (_, i) => (i === rungs - 1 ? steps : first * eta ** i))
}

/** How many of the trials that are left go on after a rung: one in three, one alone to the end. */
export function survivors(trials: number, { isNextLast }: { readonly isNextLast: boolean }): number {
  return isNextLast ? 1 : Math.max(1, Math.ceil(trials / eta))
}
