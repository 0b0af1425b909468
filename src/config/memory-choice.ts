import { z } from 'zod'

const count = z.int().positive()

/** What products with frozen weights are computed in: f32, or integers of 8 bits (`storage/slices.ts`). */
export const matmulPrecisionSchema = z.enum(['highest', 'high'])

export type MatmulPrecision = z.output<typeof matmulPrecisionSchema>

/**
 * What memory is spent on, and in which numbers is computed. It decides what sums are to their last bits, so a run that goes on keeps the
 * choice that it began with.
 */
export const memoryChoiceSchema = z.object({
  /** Whether activations are kept for the backward pass, which is faster, or computed again. */
  activations: z.enum(['keep', 'recompute']),
  /**
   * Whether frozen 16-bit weights are expanded to f32 once, or at each use. On SmolLM2-135M with 4 x 256 tokens the casts are 5 % of a
   * step (each includes a copy: BitCast does not work in place), the expansion 270 MB.
   */
  expandWeights: z.boolean(),
  /**
   * Most rows that go through the output head at once. Logits of 256 rows over a vocabulary of 49,152 are 50 MB, and two such tensors live
   * at once; fewer rows pay more for reading the weight.
   */
  headRows: count,
  /** Micro-batches that go through blocks on disk together; undefined where the blocks stay in memory. */
  streamed: z.object({ group: count }).readonly().optional(),
  matmulPrecision: matmulPrecisionSchema.default('highest'),
})

export type MemoryChoice = Readonly<z.output<typeof memoryChoiceSchema>>

/** The choice alone, of a plan that has it among others. */
export function choiceOf(plan: MemoryChoice): MemoryChoice {
  return memoryChoiceSchema.parse(plan)
}
