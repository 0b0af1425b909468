import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const src = join(root, 'src')

/** A file imports from its own part or from parts of a lower rank; parts of one rank do not know each other. */
const RANKS: Readonly<Record<string, number>> = {
  util: 0,
  metrics: 0,
  config: 1,
  formats: 1,
  graph: 1,
  storage: 1,
  text: 2,
  model: 2,
  engine: 2,
  hub: 3,
  session: 3,
  train: 4,
  generate: 4,
  export: 4,
  runs: 5,
  report: 6,
  terminal: 6,
  tasks: 7,
  thread: 7,
  commands: 8,
  index: 9,
  cli: 10,
}

const MAX_LINES = 400
const GENERATED = new Set(['src/graph/onnx/onnx_pb.ts'])

interface Import {
  readonly from: string
  readonly to: string
}

const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .map((path) => join(src, path))
  .sort()
const sources = new Map(files.map((path) => [path, readFileSync(path, 'utf8')]))

/** The part a file belongs to: its top folder, or what it is called beside the folders. */
function partOf(path: string): string {
  const [top = ''] = relative(src, path).split(/[/\\]/)
  return top.replace(/\.ts$/, '')
}

/** Static, dynamic and type imports, and re-exports. */
function importsOf(path: string, text: string): Import[] {
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*)'([^'\n]+)'|\bnew URL\(\s*'([^'\n]+\.[jt]s)'/g
  return [...text.matchAll(pattern)].map((match) => ({ from: path, to: match[1] ?? match[2] ?? '' }))
}

const imports = [...sources].flatMap(([path, text]) => importsOf(path, text))
const relativeImports = imports.filter(({ to }) => to.startsWith('.'))

test('this test sees the sources', () => {
  expect(files.length).toBeGreaterThanOrEqual(60)
  expect(relativeImports.length).toBeGreaterThanOrEqual(120)
  console.log(`architecture: ${files.length} files, ${relativeImports.length} relative imports`)
})

test('every part has a rank', () => {
  expect(files.map(partOf).filter((part) => RANKS[part] === undefined)).toEqual([])
})

test('imports lead into the same part or to a lower rank', () => {
  const wrong = relativeImports
    .map(({ from, to }) => ({ from, to: resolve(dirname(from), to) }))
    // package.json and the like are data.
    .filter(({ to }) => to.startsWith(src) && to.endsWith('.ts'))
    .filter(({ from, to }) => partOf(from) !== partOf(to) && !((RANKS[partOf(to)] ?? 9) < (RANKS[partOf(from)] ?? -1)))
    // A test may reach for anything below the command line.
    .filter(({ from }) => !from.endsWith('.test.ts'))
    .map(({ from, to }) => `${relative(root, from)} imports ${relative(root, to)}`)
  expect(wrong).toEqual([])
})

test('no file imports itself by way of others, types included', () => {
  const targets = new Map<string, string[]>()
  for (const { from, to } of relativeImports) {
    if (!from.endsWith('.test.ts')) targets.set(from, [...(targets.get(from) ?? []), resolve(dirname(from), to)])
  }
  const done = new Set<string>()
  const cycles: string[] = []
  const visit = (path: string, above: readonly string[]): void => {
    if (above.includes(path)) {
      cycles.push([...above.slice(above.indexOf(path)), path].map((one) => relative(src, one)).join(' -> '))
    }
    if (done.has(path)) return
    done.add(path)
    for (const target of targets.get(path) ?? []) visit(target, [...above, path])
  }
  for (const path of files) visit(path, [])
  expect(cycles).toEqual([])
})

test('relative imports name an existing file with its extension', () => {
  const known = new Set(files)
  const wrong = relativeImports
    .filter(({ from, to }) => to.endsWith('.ts') && !known.has(resolve(dirname(from), to)))
    .map(({ from, to }) => `${relative(root, from)} imports ${to}`)
  expect(wrong).toEqual([])
  const bare = relativeImports.filter(({ to }) => !/\.(ts|js|json)$/.test(to))
  expect(bare).toEqual([])
})

test('only the engine imports the runtime, and the graph imports nothing of Node.js', () => {
  const runtime = imports.filter(({ to, from }) => to.startsWith('onnxruntime') && partOf(from) !== 'engine')
  const node = imports.filter(({ to, from }) => to.startsWith('node:') && partOf(from) === 'graph')
  // Tests of the graph read golden files.
  expect([...runtime, ...node].filter(({ from }) => !from.endsWith('.test.ts'))).toEqual([])
})

/** The files that are loaded with one: all but those that it imports for their types, or when it needs them. */
function loadedWith(entry: string): string[] {
  const found = [entry]
  for (const path of found) {
    const statements = sources.get(path)?.matchAll(/^(?:import (?!type )|export (?=[{*]))[^;']*?'([^'\n]+)'/gm) ?? []
    for (const [, to = ''] of statements) {
      const target = to.startsWith('.') ? resolve(dirname(path), to) : to
      if (!found.includes(target)) found.push(target)
    }
  }
  return found
}

test('neither runtime nor tokenizer is loaded with the command line or the library, but in the thread that computes', () => {
  const heavy = (path: string): boolean => /^(onnxruntime-node|tokenizers)$|src\/(engine|tasks|session)\//.test(path)
  for (const entry of ['index.ts', 'cli/main.ts', 'commands/worker.ts']) {
    const loaded = loadedWith(join(src, entry))
    expect(loaded).toContain(join(src, 'commands/define.ts'))
    expect(loaded.filter(heavy)).toEqual([])
  }
  // What a task loads.
  expect(loadedWith(join(src, 'tasks/finetune.ts')).filter(heavy)).toContain('onnxruntime-node')
})

test(`no file is longer than ${MAX_LINES} lines`, () => {
  const long = [...sources]
    .map(([path, text]) => [relative(root, path), text.split('\n').length - 1] as const)
    .filter(([path, lines]) => lines > MAX_LINES && !GENERATED.has(path))
  expect(long).toEqual([])
})

test('no enums: unions of texts say the same, and can be erased', () => {
  const enums = [...sources]
    .filter(([path, text]) => !GENERATED.has(relative(root, path)) && /^\s*(export\s+)?(const\s+)?enum\s/m.test(text))
    .map(([path]) => relative(root, path))
  expect(enums).toEqual([])
})
