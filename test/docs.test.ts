import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { format, resolveConfig } from 'prettier'
import { expect, test } from 'vitest'
import { provedTable, supportPage } from '../scripts/support.ts'
import { commands } from '../src/commands/table.ts'
import { memoryChoiceSchema } from '../src/config/index.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const api = read('docs/api.md')

/** The names that a file exports, those of other files among them. */
function exportsOf(path: string): string[] {
  const text = read(path)
  const all = [...text.matchAll(/^export \* from '(.+)'/gm)].flatMap(([, from = '']) =>
    exportsOf(join(dirname(path), from)),
  )
  const lists = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, list = '']) => list.split(','))
  const listed = lists.map((entry) =>
    entry
      .trim()
      .replace(/^type /, '')
      .split(' as ')
      .at(-1)!,
  )
  const declared = [...text.matchAll(/^export (?:async )?(?:const|function\*?|class|interface|type) (\w+)/gm)]
  return [...all, ...listed.filter((name) => name !== ''), ...declared.map(([, name = '']) => name)]
}

test('docs/api.md names every export', () => {
  const names = [...exportsOf('src/index.ts'), ...exportsOf('src/graph/index.ts')]
  expect(names).toEqual(expect.arrayContaining(['finetune', 'TrainConfigInput', 'listRuns', 'Figures', 'ErrorCode']))
  expect(names.length).toBeGreaterThan(30)
  expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(api))).toEqual([])
})

test('every flag of every command is in the documentation', () => {
  const pages = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'))
  const text = ['README.md', ...pages.map((name) => join('docs', name))].map(read).join('\n')
  const flags = commands.flatMap(({ options }) => options.list().map(({ flag }) => `--${flag}`))
  expect(flags.length).toBeGreaterThan(90)
  expect(flags.filter((flag) => !new RegExp(`${flag}(?![\\w-])`).test(text))).toEqual([])
})

test('docs/api.md has a row for every event, with every field', () => {
  const declared = read('src/train/events.ts')
  const union = declared.slice(declared.indexOf('export type TrainEvent'))
  const events = [...union.matchAll(/readonly type: '(\w+)'([\s\S]*?)(?=\n {2}\||\n\n|$)/g)]
  expect(events.length).toBeGreaterThan(8)
  const missing = events.flatMap(([, type = '', body = '']) => {
    const row = api.split('\n').find((line) => line.startsWith(`| \`${type}\``)) ?? ''
    if (row === '') return [type]
    const own = [...body.matchAll(/^ {4,6}readonly (\w+)\??:/gm)].map(([, field = '']) => field)
    const fields = [...own, ...(body.includes('& MemoryChoice') ? Object.keys(memoryChoiceSchema.shape) : [])]
    return fields.filter((field) => !row.includes(`\`${field}\``)).map((field) => `${type}.${field}`)
  })
  expect(missing).toEqual([])
})

test('the tables in docs/support.md are those of the program', async () => {
  const page = supportPage(root)
  const options = await resolveConfig(join(root, 'docs/support.md'))
  expect(await format(page, { ...options, parser: 'markdown' }), 'run npm run docs:support').toBe(
    read('docs/support.md'),
  )
})

test('a test that docs/support.md would name exists', () => {
  expect(provedTable(root, 'kinds', [{ what: 'this', tests: ['test/docs.test.ts'] }]).at(-1)).toContain('docs.test.ts')
  const table = (tests: readonly string[]) => () => provedTable(root, 'kinds', [{ what: 'that', tests }])
  expect(table(['test/docs.test.ts', 'test/none.test.ts'])).toThrow('that: no test test/none.test.ts')
  expect(table([])).toThrow('that: no test')
})

test('every page of the documentation is reached from README.md or another page', () => {
  const pages = ['train', 'models', 'methods', 'evaluate', 'resume', 'reports', 'selftest', 'api', 'install', 'support']
  const all = [read('README.md'), ...pages.map((page) => read(`docs/${page}.md`))].join('\n')
  for (const page of [...pages, 'architecture', 'benchmarks', 'correctness']) expect(all).toContain(`${page}.md`)
})
