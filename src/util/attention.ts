/**
 * Parts in which queries go through attention; no sequence may be shorter. Each skips the keys behind it, and its scores are smaller, so that
 * more of them stay in the cache.
 */
export const attentionParts = 4

/**
 * The same in rows that share what their examples begin with, where a part leaves out what lies between that and its own queries: more parts leave
 * out more.
 */
export const treeParts = 8
