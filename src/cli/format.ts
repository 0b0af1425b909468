/** Texts as the terminal shows them. */

export { bytes, count, duration, number, percent, plural } from '../util/format.ts'

/** A text that cannot move the cursor or change colours: what a model or a file says is not to be trusted. */
export function printable(text: string): string {
  return text
    .replaceAll(/\r\n?/g, '\n')
    .replaceAll('\t', '  ')
    .replaceAll(/[\0-\x09\x0b-\x1f\x7f-\x9f]/g, '\u{fffd}')
}

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
  const cells = texts.map((text) => wrap(text, column))
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
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const numeric = titles.map((_, i) => rows.every((row) => /^[-+\d.,e ]*(s|%|[MG]B)?$/.test(row[i] ?? '')))
  return [titles, ...rows].map((row) =>
    widths
      .map((width, i) => (numeric[i] === true ? (row[i] ?? '').padStart(width) : (row[i] ?? '').padEnd(width)))
      .join('  ')
      .trimEnd(),
  )
}
