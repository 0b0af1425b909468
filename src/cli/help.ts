import type { Option } from '../config/index.ts'
import { wrap } from '../terminal/format.ts'

const FLAG_COLUMN = 36

/** The help page of a command: usage, then its options by group, with defaults. */
export function commandHelp(
  command: { readonly name: string; readonly summary: string; readonly usage: string; readonly notes: string },
  options: readonly Option[],
  width: number,
): string {
  const lines = [`${command.summary}.`, '', `Usage: lowrank ${command.name} ${command.usage}`, '']
  for (const note of wrap(command.notes, width)) lines.push(note)
  for (const group of new Set(options.map((option) => option.group))) {
    lines.push('', `${group}:`)
    for (const option of options.filter((one) => one.group === group)) lines.push(...optionHelp(option, width))
  }
  lines.push('', 'Output:')
  lines.push(...entry('--json', 'Results on standard output as JSON', width))
  lines.push(...entry('-h, --help', 'This page', width))
  return `${lines.join('\n')}\n`
}

function optionHelp(option: Option, width: number): string[] {
  const value = option.placeholder === undefined ? '' : ` ${option.placeholder}`
  const unset = option.unset ?? (option.default === undefined ? '' : defaultText(option.default))
  // No-break spaces hold the default together.
  const note = option.required ? ' (required)' : unset === '' ? '' : ` (default:\u{a0}${unset})`
  return entry(`--${option.flag}${value}`, `${option.help}${note}`, width)
}

/** One flag with its text in the right column; a long flag has a line of its own. */
function entry(flag: string, text: string, width: number): string[] {
  const lines = wrap(text, width - FLAG_COLUMN).map(
    (line) => `${' '.repeat(FLAG_COLUMN)}${line.replaceAll('\u{a0}', ' ')}`,
  )
  const head = `  ${flag}`
  if (head.length >= FLAG_COLUMN - 1) return [head, ...lines]
  return [`${head.padEnd(FLAG_COLUMN)}${lines[0]?.slice(FLAG_COLUMN) ?? ''}`, ...lines.slice(1)]
}

function defaultText(value: unknown): string {
  if (value === false) return ''
  if (typeof value === 'number' && value !== 0 && Math.abs(value) < 1e-3) return value.toExponential()
  return Array.isArray(value) ? value.join(',') : String(value)
}
