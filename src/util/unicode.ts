/** What is wrong with a text that is no valid Unicode, which no tokenizer can read; undefined where nothing is. */
export function unicodeProblem(text: string): string | undefined {
  const half = /\p{Surrogate}/u.exec(text)
  if (half === null) return undefined
  const code = half[0].charCodeAt(0).toString(16)
  return `no valid Unicode: half a surrogate pair, \\u${code}, at character ${half.index + 1}`
}
