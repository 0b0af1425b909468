import { readFileSync, statSync } from 'node:fs'
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'
import { LowrankError } from '../util/errors.ts'
import type { Entry, Source } from './parse.ts'

/** A configuration is a page of text; more is another file by mistake. */
const MAX_BYTES = 1 << 20

/**
 * Reads a YAML (or JSON) file of options: one mapping, keys in camelCase or snake_case. Paths in it are relative to the
 * current folder, not to the file. The values are not checked yet.
 *
 * @throws LowrankError `config` with file and line.
 */
export function loadConfigFile(path: string): Source {
  const lines = new LineCounter()
  const document = parseYaml(path, lines)
  const [error] = [...document.errors, ...document.warnings]
  if (error !== undefined) {
    throw new LowrankError('config', `${path}:${lines.linePos(error.pos[0]).line}: ${error.message}`)
  }
  if (document.contents === null) return { entries: [], spelling: 'key', text: true, file: path }
  if (!isMap(document.contents)) {
    throw new LowrankError(
      'config',
      `${path}: found ${isSeq(document.contents) ? 'a list' : 'a single value'}, expected lines of "option: value"`,
    )
  }
  const entries = document.contents.items.map(({ key, value }): Entry => {
    const line = isScalar(key) && key.range ? lines.linePos(key.range[0]).line : 1
    const name = isScalar(key) ? String(key.value) : String(key)
    try {
      return { name, value: isNode(value) ? value.toJS(document) : value, where: `${path}:${line}: ${name}` }
    } catch (cause) {
      // Aliases that lead nowhere, or that multiply without end.
      throw new LowrankError('config', `${path}:${line}: ${cause instanceof Error ? cause.message : 'bad value'}`, {
        cause,
      })
    }
  })
  return { entries, spelling: 'key', text: true, file: path }
}

function parseYaml(path: string, lineCounter: LineCounter): ReturnType<typeof parseDocument> {
  const text = readText(path)
  try {
    return parseDocument(text, { lineCounter, prettyErrors: false })
  } catch (cause) {
    // The parser calls itself for each level.
    throw new LowrankError('config', `${path}: nested too deeply`, { cause })
  }
}

function readText(path: string): string {
  let bytes: Buffer
  try {
    const found = statSync(path)
    // A device has no end.
    if (!found.isFile()) throw new LowrankError('config', `configuration file ${path}: not a file`)
    const { size } = found
    if (size > MAX_BYTES) {
      throw new LowrankError('config', `${path}: ${size} bytes; a configuration has at most ${MAX_BYTES}`)
    }
    bytes = readFileSync(path)
  } catch (cause) {
    if (cause instanceof LowrankError) throw cause
    const reason = (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : (cause as Error).message
    const hint = 'A first argument without dashes is a YAML file of options; its path counts from the current folder.'
    throw new LowrankError('config', `configuration file ${path}: ${reason}`, { cause, hint })
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new LowrankError('config', `configuration file ${path}: not UTF-8 text`, { cause })
  }
}
