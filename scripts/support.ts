/*
 * The table of families in docs/support.md, made from the tables of the program and from the golden values that prove each line.
 *
 *     npm run docs:support        # writes it; test/docs.test.ts fails where it is stale
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { activations } from '../src/model/families/describe.ts'
import { families } from '../src/model/families/index.ts'
import { ropeTypes } from '../src/model/families/rope.ts'

const [begin, end] = ['<!-- families: npm run docs:support -->', '<!-- end of families -->']

/** docs/support.md of a checkout with its table made again. */
export function supportPage(root: string): string {
  const folder = join(root, 'test/golden/families')
  const cases = readdirSync(folder).filter((name) => name.endsWith('.json'))
  const typeOf = (name: string): string =>
    (JSON.parse(readFileSync(join(folder, name), 'utf8')) as { config: { model_type: string } }).config.model_type
  const code = (names: readonly string[]): string => names.map((name) => `\`${name}\``).join(', ')
  const rows = Object.entries(families).map(([type, { models, ownKeys }]) => {
    const proved = cases.filter((name) => typeOf(name) === type).map((name) => name.slice(0, -'.json'.length))
    return `| \`${type}\` | ${models} | ${code(ownKeys)} | ${code(proved)} |`
  })
  const table = [
    '| `model_type` | models | keys of its own in `config.json` | golden values |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
    `Activations: ${code(Object.keys(activations))}. Rotary scaling: ${code(ropeTypes)}.`,
  ]
  const page = readFileSync(join(root, 'docs/support.md'), 'utf8')
  const [before, , after] = [page.split(begin)[0], undefined, page.split(end)[1]]
  if (before === undefined || after === undefined) throw new Error(`docs/support.md: no "${begin}" and "${end}"`)
  return `${before}${begin}\n\n${table.join('\n')}\n\n${end}${after}`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync('docs/support.md', supportPage('.'))
}
