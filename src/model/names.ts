import type { DecoderConfig } from './decoder.ts'

/*
 * Weights that are not inside a block, as checkpoints of all families name them.
 */

export function embeddingName({ trunk }: Pick<DecoderConfig, 'trunk'>): string {
  return `${trunk}.embed_tokens.weight`
}

/** Whether a weight is the embedding of whatever model. */
export function isEmbedding(name: string): boolean {
  return /^model\.(language_model\.)?embed_tokens\.weight$/.test(name)
}

export const headName = 'lm_head.weight'

/** The checkpoint's name of a weight: a tied head that was separated starts as the embedding. */
export function sourceName(config: Pick<DecoderConfig, 'trunk' | 'tieWordEmbeddings'>, name: string): string {
  return name === headName && config.tieWordEmbeddings ? embeddingName(config) : name
}
