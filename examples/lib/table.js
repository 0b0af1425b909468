/**
 * A number, or of several the mean and how far they go.
 *
 * @param {readonly number[]} values from 0 to 1
 */
export function share(values) {
  const percent = (/** @type {number} */ value) => (100 * value).toFixed(1)
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  if (values.length === 1) return percent(mean)
  return `${percent(mean)} (${percent(Math.min(...values))} to ${percent(Math.max(...values))})`
}

/**
 * Shows a table in Markdown.
 *
 * @param {readonly string[]} columns
 * @param {readonly (readonly string[])[]} rows
 */
export function table(columns, rows) {
  const widths = columns.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const line = (/** @type {readonly string[]} */ cells) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`
  return [line(columns), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}

/**
 * A row of a table for each model: what it is, and these of its metrics.
 *
 * @param {readonly { what: string, results: readonly import('./lowrank.js').Evaluation[] }[]} found
 * @param {readonly string[]} names
 */
export function metricRows(found, names) {
  return found.map(({ what, results }) => [
    what,
    ...names.map((name) => share(results.map(({ metrics }) => metrics[name] ?? NaN))),
  ])
}
