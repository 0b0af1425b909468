import { parseArgs } from 'node:util'
import type { Command } from '../commands/table.ts'
import { loadConfigFile, resolveName, type Entry, type Option, type Source } from '../config/index.ts'
import { LowrankError } from '../util/errors.ts'

/** A command line, taken apart: the options of file and flags, the other arguments, and the common flags. */
interface Arguments {
  readonly sources: readonly Source[]
  readonly words: readonly string[]
  readonly help: boolean
  readonly json: boolean
}

/**
 * Takes a command line apart. The values are text still; unknown flags stay among the entries, so that all problems are
 * reported together with those of the values.
 *
 * @throws LowrankError `usage` where the line has no reading: a value is missing, an argument too much.
 */
export function readArguments(
  args: readonly string[],
  options: readonly Option[],
  { configFile, argument }: Pick<Command, 'configFile' | 'argument'>,
): Arguments {
  const booleans = new Set(options.filter((option) => option.kind === 'boolean').map((option) => option.flag))
  const known = new Set(options.map((option) => option.flag))
  const { tokens } = parseArgs({
    args: canonical(args, options),
    // Not strict: the messages of `strict` know neither suggestions nor our wording.
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: {
      ...Object.fromEntries(
        options.map(({ flag, kind }) => [flag, { type: kind === 'boolean' ? 'boolean' : 'string' }]),
      ),
      help: { type: 'boolean', short: 'h' },
      json: { type: 'boolean' },
    },
  })

  const entries: Entry[] = []
  const common = { help: false, json: false }
  let file: string | undefined
  const words: string[] = []
  const most = argument === undefined ? 0 : argument.list ? Infinity : 1
  let afterUnknown = false
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue
    if (token.kind === 'positional') {
      // The word after an unknown flag is most likely its value.
      if (!afterUnknown) {
        if (words.length < most) words.push(token.value)
        else if (configFile && file === undefined && entries.length === 0) file = token.value
        else throw unexpected(token.value, configFile)
      }
      afterUnknown = false
      continue
    }
    afterUnknown = false
    const { name, rawName: where, value, inlineValue } = token
    if (name === 'help' || name === 'json') {
      common[name] = true
    } else if (booleans.has(name) || (name.startsWith('no-') && booleans.has(name.slice(3)))) {
      const flag = booleans.has(name) ? name : name.slice(3)
      entries.push({ name: flag, where, value: readBoolean(where, value) === (flag === name) })
    } else if (known.has(name) && where.startsWith('--')) {
      if (value === undefined || (inlineValue === false && /^-(?![\d.])/.test(value))) {
        const { placeholder } = options.find((option) => option.flag === name) ?? {}
        throw new LowrankError('usage', `${where}: needs a value (${where} ${placeholder})`)
      }
      entries.push({ name, where, value })
    } else {
      // `-r 8`: one dash is never enough, but the name may be right.
      if (known.has(name)) throw new LowrankError('usage', `${where}: unknown option. Did you mean "--${name}"?`)
      entries.push({ name, where, value })
      afterUnknown = inlineValue === undefined
    }
  }
  // Help is answered even where the rest of the line is wrong.
  if (argument !== undefined && words.length < argument.least && !common.help)
    throw new LowrankError('usage', `${words.length === 0 ? '' : 'a second '}${argument.name} is missing`)
  const sources: Source[] = file === undefined || common.help ? [] : [loadConfigFile(file)]
  return { ...common, words, sources: [...sources, { entries, spelling: 'flag', text: true }] }
}

/** Spells every flag as the schema does: `--lora_alpha 16` and `--model-name-or-path DIR` are understood too. */
function canonical(args: readonly string[], options: readonly Option[]): string[] {
  const end = args.indexOf('--')
  return args.map((arg, index) => {
    const match = /^--(no[-_])?([^=]+)(=.*)?$/s.exec(arg)
    if (match === null || (end !== -1 && index > end)) return arg
    const [, no = '', name = '', value = ''] = match
    const found = resolveName(options, name, 'flag')
    return 'option' in found ? `--${no === '' ? '' : 'no-'}${found.option.flag}${value}` : arg
  })
}

function unexpected(value: string, configFile: boolean): LowrankError {
  const before = configFile ? 'A configuration file comes before all flags; ' : ''
  const hint = `${before}--flag and --no-flag take no value.`
  return new LowrankError('usage', `unexpected argument "${value}"`, { hint })
}

function readBoolean(where: string, value: string | boolean | undefined): boolean {
  if (value === undefined || value === true || value === 'true') return true
  if (value === false || value === 'false') return false
  throw new LowrankError('usage', `${where}: found "${value}", expected no value, true or false`)
}
