/**
 * Parts in which queries go through attention; no sequence may be shorter. Each skips the keys behind it, and its scores are smaller, so that
 * more of them stay in the cache.
 */
export const attentionParts = 4
