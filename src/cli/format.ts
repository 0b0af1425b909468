/** Numbers and texts as the terminal shows them. */

/** `412 MB`, `3.21 GB`; decimal units. */
export function bytes(value: number): string {
  return value >= 1e9 ? `${(value / 1e9).toFixed(2)} GB` : `${Math.round(value / 1e6)} MB`
}

/** `4.2 s`, `3m 05s`, `2h 07m`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?'
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0')
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`
  return `${Math.floor(whole / 3600)}h ${two((whole % 3600) / 60)}m`
}

/** `1,234,567`. */
export function count(value: number): string {
  return value.toLocaleString('en-US')
}

/** `0.68 %` of a share from 0 to 1. */
export function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`
}

/** A loss or norm; small values keep their digits. */
export function number(value: number): string {
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(2) : value.toFixed(4)
}

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

/** `1 step`, `1,200 steps`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`
}
