/*
 * Weights that are not inside a block, as checkpoints of all families name them.
 */

export const embeddingName = 'model.embed_tokens.weight'
export const headName = 'lm_head.weight'
