/**
 * Whether an answer names the passage that it should be from, as `--metric-module` of `lowrank eval` calls it.
 *
 * @param {string} _prompt
 * @param {string} completion
 * @param {string} expected
 */
// oxlint-disable-next-line import/no-default-export -- the form of such a module
export default function cites(_prompt, completion, expected) {
  const source = /\[[^\]]+\]/.exec(expected)?.[0]
  return source !== undefined && completion.includes(source) ? 1 : 0
}
