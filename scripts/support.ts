/*
 * The tables of docs/support.md that say what is read and which test proves each line, made from the tables of the program.
 *
 *     npm run docs:support        # writes them; test/docs.test.ts fails where they are stale, or name a test that does not exist
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { architectures } from '../src/formats/gguf/architectures.ts'
import { activations } from '../src/model/families/describe.ts'
import { families } from '../src/model/families/index.ts'
import { ropeTypes } from '../src/model/families/rope.ts'
import { type BlockType, blockTypes } from '../src/storage/gguf/index.ts'
import type { StorageKind } from '../src/storage/stored.ts'
import { components } from '../src/text/tokenizer/components.ts'
import type { FloatDtype } from '../src/util/dtype.ts'

/** A line of what is read: what it is in words, and the tests that prove it, by their paths in the repository. */
interface Proved {
  readonly what: string
  readonly tests: readonly string[]
}

const sourcesTest = 'src/model/sources/sources.test.ts'

const sources: readonly Proved[] = [
  {
    what: 'a folder: `config.json`, safetensors in one file or in parts',
    tests: [sourcesTest, 'src/formats/safetensors.test.ts'],
  },
  { what: 'a `.gguf` file', tests: [sourcesTest, 'test/golden/gguf-families.test.ts', 'test/e2e/gguf.test.ts'] },
  { what: 'a name on the hub, and what its cache has offline', tests: ['test/e2e/hub.test.ts'] },
  {
    what: 'an adapter of PEFT on any of these',
    tests: ['src/model/peft/adapt.test.ts', 'test/e2e/hub.test.ts', 'test/e2e/gguf.test.ts'],
  },
  { what: 'random weights of a `config.json` (`init: random`)', tests: [sourcesTest, 'test/e2e/full.test.ts'] },
]

const bitsandbytesTests = [
  'src/storage/golden.test.ts',
  'src/model/bitsandbytes/checkpoint.test.ts',
  'test/golden/quantized.test.ts',
]

/** Every kind of storage of the program, as files have it. */
const stored = {
  float: [
    {
      what: `${code(['F32', 'F16', 'BF16'] satisfies readonly FloatDtype[])}, of safetensors and of GGUF`,
      tests: ['src/util/dtype.test.ts', sourcesTest],
    },
    { what: '`F8_E4M3`, `F8_E5M2` of safetensors, with scales and without', tests: ['src/model/fp8.test.ts'] },
  ],
  '4bit': [{ what: '`nf4` and `fp4` of bitsandbytes, with double quantization and without', tests: bitsandbytesTests }],
  int8: [{ what: '8 bits of bitsandbytes (LLM.int8)', tests: bitsandbytesTests }],
  blocks: [{ what: `${code(blockTypes)} of GGUF`, tests: ['src/storage/gguf/gguf.test.ts', 'test/e2e/gguf.test.ts'] }],
  split: [
    {
      what: `heads of GGUF fed in slices: ${code(['Q8_0', 'Q6_K'] satisfies readonly BlockType[])}`,
      tests: ['src/storage/gguf/gguf.test.ts', 'src/storage/formats.test.ts', 'test/e2e/gguf.test.ts'],
    },
  ],
  // No file has it: what generation computes with.
  nbit: [],
  // What training computes with, where that is faster.
  slices: [],
} as const satisfies Readonly<Record<StorageKind, readonly Proved[]>>

const tokenizers: readonly Proved[] = [
  {
    what: `\`tokenizer.json\`: ${Object.entries(components)
      .map(([section, types]) => `${Object.keys(types).length} kinds of \`${section}\``)
      .join(', ')} (below)`,
    tests: ['test/golden/tokenizers.test.ts', 'src/text/tokenizer.test.ts'],
  },
  {
    what: 'that of a GGUF file, made from its metadata',
    tests: ['src/formats/gguf/tokenizer.test.ts', 'test/e2e/gguf.test.ts'],
  },
]

/** The parts of the page that are made, by the names of their marks. */
const parts: Readonly<Record<string, (root: string) => readonly string[]>> = {
  families: familyTable,
  proofs: (root) =>
    [
      ['where models come from', sources],
      ['how weights are stored', Object.values(stored).flat()],
      ['tokenizers', tokenizers],
    ].flatMap(([title, lines]) => [...provedTable(root, title as string, lines as readonly Proved[]), '']),
}

/** docs/support.md of a checkout with its tables made again. Throws where a test that they name does not exist. */
export function supportPage(root: string): string {
  return Object.entries(parts).reduce(
    (page, [name, make]) => {
      const [begin, end] = [`<!-- ${name}: npm run docs:support -->`, `<!-- end of ${name} -->`]
      const [before, after] = [page.split(begin)[0], page.split(end)[1]]
      if (before === undefined || after === undefined) throw new Error(`docs/support.md: no "${begin}" and "${end}"`)
      return `${before}${begin}\n\n${make(root).join('\n').trimEnd()}\n\n${end}${after}`
    },
    readFileSync(join(root, 'docs/support.md'), 'utf8'),
  )
}

/** A table of lines and of their tests, all of which must exist. */
export function provedTable(root: string, title: string, lines: readonly Proved[]): string[] {
  const rows = lines.map(({ what, tests }) => {
    const missing = tests.find((path) => !existsSync(join(root, path)))
    if (missing !== undefined || tests.length === 0) throw new Error(`${what}: no test ${missing ?? ''}`)
    return `| ${what} | ${code(tests)} |`
  })
  return [`| ${title} | tests |`, '| --- | --- |', ...rows]
}

function familyTable(root: string): string[] {
  const folder = join(root, 'test/golden/families')
  const cases = readdirSync(folder).filter((name) => name.endsWith('.json'))
  const typeOf = (name: string): string =>
    (JSON.parse(readFileSync(join(folder, name), 'utf8')) as { config: { model_type: string } }).config.model_type
  const rows = Object.entries(families).map(([type, { models, ownKeys }]) => {
    const proved = cases.filter((name) => typeOf(name) === type).map((name) => name.slice(0, -'.json'.length))
    return `| \`${type}\` | ${models} | ${code(ownKeys)} | ${code(proved)} | ${code(ggufNames(root, type))} |`
  })
  return [
    '| `model_type` | models | keys of its own in `config.json` | golden values | in GGUF, with a golden file |',
    '| --- | --- | --- | --- | --- |',
    ...rows,
    '',
    `Activations: ${code(Object.keys(activations))}. Rotary scaling: ${code(ropeTypes)}.`,
  ]
}

/** The architectures of GGUF files that are models of a family. */
function ggufNames(root: string, type: string): string[] {
  const golden = JSON.parse(readFileSync(join(root, 'test/golden/gguf/families.json'), 'utf8')) as Readonly<
    Record<string, { readonly config: { readonly model_type: string } }>
  >
  if (!Object.values(golden).some(({ config }) => config.model_type === type)) return []
  const own = Object.entries(architectures).filter(([, { modelType }]) => modelType === type)
  // Mistral is written as a Llama.
  return own.length > 0 ? own.map(([name]) => name) : ['llama']
}

function code(names: readonly string[]): string {
  return names.map((name) => `\`${name}\``).join(', ')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync('docs/support.md', supportPage('.'))
}
