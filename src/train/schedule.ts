/** Course of the learning rate, named as transformers' `lr_scheduler_type`. */
export type Schedule = 'linear' | 'constant' | 'constant_with_warmup' | 'cosine'

/**
 * The factor on the learning rate for optimizer step `step` (from 0) of `steps`: as in transformers' `optimization.py`, where the first
 * step of a warmup has rate 0.
 */
export function scheduleFactor(
  schedule: Schedule,
  { step, steps, warmupSteps }: { readonly step: number; readonly steps: number; readonly warmupSteps: number },
): number {
  if (schedule === 'constant') return 1
  if (step < warmupSteps) return step / Math.max(1, warmupSteps)
  const left = Math.max(0, steps - step) / Math.max(1, steps - warmupSteps)
  switch (schedule) {
    case 'constant_with_warmup':
      return 1
    case 'linear':
      return left
    case 'cosine':
      return 0.5 * (1 + Math.cos(Math.PI * (1 - left)))
  }
}
