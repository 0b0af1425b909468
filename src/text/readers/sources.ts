import { readdir, realpath, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { glob, isDynamicPattern } from 'tinyglobby'
import { standardInput } from '../../formats/chunks.ts'
import { LowrankError } from '../../util/errors.ts'
import { parseHubName } from '../../util/hub-name.ts'
import { extensionOf, knownExtensions } from './records.ts'

/** What `--train` names: a file, or standard input (`-`). */
export interface DataSource {
  readonly path: string
  /** How much it counts beside others; 1 where none is named. */
  readonly weight: number
}

/** A dataset of the hub, as `hf:org/name[@revision][/split]` names it. */
export interface DatasetName {
  readonly id: string
  readonly revision: string | undefined
  /** `train` where none is named; `folder/split` chooses among folders that have one each. */
  readonly split: string
}

export interface FindOptions {
  /** The files of a dataset of the hub. */
  readonly hub: (name: DatasetName) => Promise<readonly string[]>
  /** Is told what is left out, in words. */
  readonly onNote?: (message: string) => void
}

/**
 * The files that a text or a list names. A text is cut at its commas, where no file has it for its name; each part is a file, a folder, a
 * pattern, `-` or a dataset of the hub, and may end with `:WEIGHT`, which is that of each of its files.
 *
 * @throws LowrankError `data`: it names nothing; what `hub` throws.
 */
export async function findSources(
  spec: string | readonly string[],
  { hub, onNote = (): void => {} }: FindOptions,
): Promise<DataSource[]> {
  const parts = typeof spec !== 'string' ? spec : (await exists(spec)) ? [spec] : splitAtCommas(spec)
  const sources: DataSource[] = []
  const seen = new Set<string>()
  for (const part of parts) {
    const { name, weight } = await weightOf(part)
    for (const path of await filesOf(name, { hub, onNote })) {
      const real = path === standardInput ? path : await realpath(path).catch(() => path)
      if (seen.has(real)) {
        throw new LowrankError('data', `the data name ${path} twice`, {
          hint: path === standardInput ? 'It can be read once.' : `To have it count more, give it a weight: ${path}:2`,
        })
      }
      seen.add(real)
      sources.push({ path, weight })
    }
  }
  return sources
}

/** Not at those within the braces of a pattern. */
function splitAtCommas(spec: string): string[] {
  return spec.split(/,(?![^{}]*\})/).map((part) => part.trim())
}

async function weightOf(part: string): Promise<{ readonly name: string; readonly weight: number }> {
  const [, name = '', text = ''] = /^(.+):([^:/\\]*)$/.exec(part) ?? []
  if (name === '' || (await exists(part))) return { name: part, weight: 1 }
  const weight = Number(text)
  if (/^[\d.]+(?:e[+-]?\d+)?$/i.test(text) && weight > 0 && Number.isFinite(weight)) return { name, weight }
  if (!/^[-+]?[\d.]/.test(text) && text !== '' && !(await exists(name))) return { name: part, weight: 1 }
  throw new LowrankError('data', `the weight of ${name} is "${text}"; a number above zero is expected`)
}

async function filesOf(name: string, options: Required<FindOptions>): Promise<readonly string[]> {
  if (name === standardInput) return [name]
  const found = await stat(name).catch(() => undefined)
  if (found?.isDirectory() === true) return inFolder(name, options)
  // What is no file, such as a pipe, is the reader's concern.
  if (found !== undefined) return [name]
  if (name.startsWith('hf:')) return options.hub(parseDataset(name))
  const folder = process.cwd()
  if (isDynamicPattern(name)) {
    const paths = await glob(name.replaceAll('\\', '/'), { onlyFiles: true, expandDirectories: false })
    if (paths.length > 0) return paths.sort(byText)
    throw new LowrankError('data', `no file matches "${name}", looked for in ${folder}`)
  }
  throw new LowrankError('data', `there is no file, folder or pattern "${name}", looked for in ${folder}`, {
    hint: hintFor(name),
  })
}

function hintFor(name: string): string {
  if (name === '') return 'Is there a comma too many?'
  if (/^https?:/.test(name)) return 'Download it first; a dataset of the Hugging Face hub is named hf:ORG/NAME.'
  return parseHubName(name) === undefined
    ? 'Check the path, relative to the current folder.'
    : `If it is a dataset of the Hugging Face hub, name it hf:${name}`
}

/** Files with the extension of data that are none: what describes a folder or a dataset. */
const noData =
  /^(?:readme|licen[cs]e|requirements|changelog)\b|^(?:dataset_infos?|dataset_dict|state|config|package(?:-lock)?)\.json$/i

/** Whether a file may be data, by its name. */
export function isDataName(path: string): boolean {
  return knownExtensions.includes(extensionOf(path)) && !noData.test(basename(path))
}

const forTests = /(?:^|[^a-z])(?:test|valid|validation|eval|dev)(?:[^a-z]|$)/i

async function inFolder(folder: string, { onNote }: Required<FindOptions>): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries
    .filter((entry) => !entry.isDirectory())
    .map(({ parentPath, name }) => join(parentPath, name).slice(join(folder, '/').length))
    .filter((path) => !path.split(/[/\\]/).some((part) => part.startsWith('.')))
    .sort(byText)
  const data = files.filter(isDataName)
  const others = files.filter((path) => !data.includes(path))
  if (data.length === 0) {
    throw new LowrankError('data', `the folder ${folder} has no file of data: ${listed(files, 'it is empty')}`, {
      hint: `What is read ends with ${knownExtensions.join(', ')}, maybe followed by .gz or .zst.`,
    })
  }
  if (others.length > 0) onNote(`left out of ${folder}: ${listed(others)}`)
  const tests = data.filter((path) => forTests.test(path))
  if (tests.length > 0 && tests.length < data.length) {
    onNote(`all ${data.length} files in ${folder} are used, ${listed(tests)} among them; name files to choose`)
  }
  return data.map((path) => join(folder, path))
}

function listed(names: readonly string[], none = ''): string {
  const shown = names.slice(0, 5).join(', ')
  return names.length === 0 ? none : names.length > 5 ? `${shown} and ${names.length - 5} more` : shown
}

/** The order of code units, on every machine. */
function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** @throws LowrankError `data`: it is no name of a dataset. */
export function parseDataset(text: string): DatasetName {
  const [, id = '', revision, split = 'train'] =
    /^hf:([^/@]+\/[^/@]+)(?:@([^/]+))?(?:\/(\w[\w.-]*(?:\/\w[\w.-]*)?))?$/.exec(text) ?? []
  if (parseHubName(revision === undefined ? id : `${id}@${revision}`) === undefined) {
    throw new LowrankError('data', `"${text}" is no name of a dataset on the hub`, {
      hint: 'hf:ORG/NAME is expected, maybe followed by @REVISION and /SPLIT.',
    })
  }
  return { id, revision, split }
}

async function exists(path: string): Promise<boolean> {
  return path !== '' && (await stat(resolve(path)).catch(() => undefined)) !== undefined
}
