/** Texts as the terminal shows them. */

/**
 * A text that cannot move the cursor, change colours or turn the order of letters: control characters of files, names and models
 * are written as JSON does, so that JSON stays what it is. Line feeds stay.
 */
export function printable(text: string): string {
  return text
    .replaceAll('\t', '  ')
    .replaceAll(UNSAFE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** C0 and C1 controls, separators of lines, marks of order, what takes no room, and halves of surrogate pairs. */
const UNSAFE = /[\0-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu

/** The lines of a text, broken at spaces to at most `width` characters. */
export function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((line) => {
    const lines: string[] = []
    let rest = line
    while (rest.length > width) {
      const space = rest.lastIndexOf(' ', width)
      const cut = space > 0 ? space : width
      lines.push(rest.slice(0, cut))
      rest = rest.slice(space > 0 ? cut + 1 : cut)
    }
    return [...lines, rest]
  })
}

/** Texts side by side in columns of equal width, with their titles above. */
export function columns(titles: readonly string[], texts: readonly string[], width: number): string[] {
  const gap = ' | '
  const column = Math.max(10, Math.floor((width - gap.length * (texts.length - 1)) / texts.length))
  const cells = texts.map((text) => wrap(printable(text), column))
  const row = (parts: readonly string[]): string =>
    parts
      .map((part) => part.padEnd(column))
      .join(gap)
      .trimEnd()
  const height = Math.max(0, ...cells.map((cell) => cell.length))
  const rows = Array.from({ length: height }, (_, line) => row(cells.map((cell) => cell[line] ?? '')))
  return [row(titles), row(titles.map(() => '-'.repeat(column))), ...rows]
}

/** Rows under titles, each column as wide as its widest cell, with two spaces between; columns of numbers flush right. */
export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string[] {
  return aligned(
    titles.map(cell),
    rows.map((row) => row.map(cell)),
  )
}

/** A name with a line feed stays in its row. */
function cell(text: string): string {
  return printable(text).replaceAll('\n', '\\n')
}

function aligned(titles: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const numeric = titles.map((_, i) => rows.every((row) => /^[-+\d.,e ]*(s|%|[MG]B|bytes)?$/.test(row[i] ?? '')))
  return [titles, ...rows].map((row) =>
    widths
      .map((width, i) => (numeric[i] === true ? (row[i] ?? '').padStart(width) : (row[i] ?? '').padEnd(width)))
      .join('  ')
      .trimEnd(),
  )
}
