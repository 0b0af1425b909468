/** Numbers as people read them: on the terminal and in reports. */

/** `512 bytes`, `412 MB`, `3.21 GB`; decimal units. */
export function formatSize(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`
  return bytes >= 1e6 ? `${Math.round(bytes / 1e6)} MB` : `${count(bytes)} bytes`
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

/** `120 MB of 538 MB, 12 s left`; `perByte`: seconds that each took so far, where that is known. */
export function progressText(done: number, total: number, perByte: number | undefined): string {
  const left = perByte === undefined ? '' : `, ${duration(perByte * (total - done))} left`
  return `${formatSize(done)} of ${formatSize(total)}${left}`
}

/** `1,234,567` of a whole number. By hand, since the first `toLocaleString` of a process takes 30 ms. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** `0.68 %` of a share from 0 to 1. */
export function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`
}

/** A loss or norm; small values keep their digits. */
export function number(value: number): string {
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(2) : value.toFixed(4)
}

/** What a file holds, as a message shows it: JSON, cut where it is long. */
export function brief(value: unknown): string {
  const json = JSON.stringify(value) ?? String(value)
  return json.length > 80 ? `${json.slice(0, 80)}...` : json
}

/** `1 step`, `1,200 steps`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`
}
