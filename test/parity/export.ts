/*
 * Exports in the programs that they are for: llama.cpp, mlx-lm, PEFT, the gguf package, Go's templates.
 *
 *     npm run parity:export -- --model DIR ... [--texts N] [--tokens N] [--only llama,tokens,mlx,peft,gguf,go]
 *
 * Of each model an adapter with random numbers is made, with ranks and factors of its own for some modules. What is not installed is skipped
 * with a line: $LOWRANK_PEERS a folder in which node-llama-cpp is installed, $LOWRANK_PYTHON a Python with torch, transformers, peft and
 * gguf, $LOWRANK_MLX_PYTHON one with mlx-lm.
 */
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { findPython, runPython } from '../../bench/python.ts'
import { commands } from '../../src/commands/table.ts'
import { knownTemplates } from '../../src/export/ollama/templates.ts'
import { type AdapterTensor, loraTensorNames, writeAdapter } from '../../src/model/peft/adapter.ts'
import { ranksOf } from '../../src/model/peft/targets.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { linearPaths } from '../../src/model/weight-specs.ts'
import { openSession } from '../../src/session/session.ts'
import { type ExportConfig, runExport } from '../../src/tasks/export.ts'
import { ChatTemplate, type Message } from '../../src/text/template/template.ts'
import { fillNormal, stream } from '../../src/util/random.ts'
import { resultOf } from '../../src/util/task.ts'
import { findLlamaCpp, openLlamaCpp } from './llama-cpp.ts'

const scripts = join(import.meta.dirname, '../../../test/parity')
const prompts = [
  'The capital of France is',
  'Once upon a time, there was a',
  'def fibonacci(n):\n    ',
  'Water boils at a temperature of',
  '1, 2, 3, 4, 5,',
  'Dear Sir or Madam,\n\nI am writing to',
  'The three primary colours are',
  'import numpy as np\n\n',
  'In 1969, the first human',
  'Question: What is the largest planet?\nAnswer:',
]

function report(passed: boolean, what: string): void {
  console.log(`${passed ? 'ok  ' : 'FAIL'} ${what}`)
  if (!passed) process.exitCode = 1
}

/** Writes an adapter that changes what a model says: about a twentieth of the weights that it adapts. */
async function makeAdapter(model: string, folder: string): Promise<void> {
  const source = await openWeights(model)
  const { config, specs } = source
  await source.close()
  const shapes = new Map(specs.map(({ name, shape }) => [name, shape]))
  const fused = config.modelType === 'phi3'
  const lora = {
    r: 8,
    loraAlpha: 16,
    useRslora: true,
    targetModules: fused
      ? ['qkv_proj', 'o_proj', 'down_proj']
      : ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'up_proj', 'down_proj'],
    rankPattern: { o_proj: 4 },
    alphaPattern: { down_proj: 10 },
    loraDropout: 0,
    bias: 'none',
  } as const
  const paths = linearPaths(config).filter((path) => lora.targetModules.some((name) => path.endsWith(`.${name}`)))
  const ranks = ranksOf(lora, paths)
  const tensors = paths.flatMap((path): AdapterTensor[] => {
    const [out = 0, inner = 0] = shapes.get(`${path}.weight`) ?? []
    const r = ranks.get(path) ?? 8
    const made = (shape: readonly [number, number], deviation: number, name: string): AdapterTensor => {
      const data = new Float32Array(shape[0] * shape[1])
      fillNormal(data, 0, deviation, stream(7, name))
      return { name, shape, data }
    }
    const { a, b } = loraTensorNames(path)
    return [made([r, inner], 1 / Math.sqrt(inner), a), made([out, r], 0.01, b)]
  })
  await writeAdapter({ folder, config: lora, base: { name: model }, tensors, files: new Map(), card: undefined })
}

/** What Lowrank says after some ids: tokens, and how far the second best was behind each. */
interface Said {
  readonly ids: readonly number[]
  readonly tokens: readonly number[]
  readonly gaps: readonly number[]
  readonly first: Float32Array
}

async function sayings(model: string, adapter: string, count: number): Promise<Said[]> {
  await using session = await openSession({ model, adapter })
  const { pipeline, tokenizer } = await session.load()
  const all: Said[] = []
  for (const text of await tokenizer.encode(prompts)) {
    const ids = [...tokenizer.prefix, ...text]
    const [tokens, gaps]: number[][] = [[], []]
    let first: Float32Array | undefined
    while (tokens!.length < count) {
      const logits = await pipeline.nextLogits(Int32Array.from([...ids, ...tokens!]))
      first ??= logits
      const { best, gap } = choice(logits)
      tokens!.push(best)
      gaps!.push(gap)
      if (best === tokenizer.eosId) break
    }
    all.push({ ids, tokens: tokens!, gaps: gaps!, first: first! })
  }
  return all
}

/** The most likely token, and how far the next one is behind. */
function choice(logits: Float32Array): { readonly best: number; readonly gap: number } {
  let [best, second] = [0, -Infinity]
  for (let i = 1; i < logits.length; i++) {
    if (logits[i]! > logits[best]!) [second, best] = [logits[best]!, i]
    else second = Math.max(second, logits[i]!)
  }
  return { best, gap: logits[best]! - second }
}

/** Compares greedy tokens; where another program goes another way at a tie as close as its rounding, the rest says nothing. */
function compareTokens(what: string, said: readonly Said[], found: readonly (readonly number[])[], tie: number): void {
  let [same, ties, tokens] = [0, 0, 0]
  found.forEach((own, i) => {
    const { tokens: wanted, gaps } = said[i]!
    const at = wanted.findIndex((token, j) => token !== own[j])
    tokens += at === -1 ? wanted.length : at
    if (at === -1) same++
    else if (gaps[at]! < tie) ties++
    else console.error(`  prompt ${i}: token ${at} is ${own[at]}, not ${wanted[at]} (ahead by ${gaps[at]})`)
  })
  const all = `the same greedy tokens for ${same} of ${found.length} prompts (${tokens} tokens)`
  report(
    same + ties === found.length,
    `${what}: ${all}${ties > 0 ? `, ${ties} part at a tie of less than ${tie}` : ''}`,
  )
}

async function write(config: Partial<ExportConfig> & Pick<ExportConfig, 'to' | 'output'>): Promise<string> {
  const command = commands.find(({ name }) => name === 'export')
  const parsed = command?.options.parse({ check: false, ...config }) as ExportConfig
  await resultOf(runExport(parsed, { cancelled: () => false }))
  return config.output
}

const { values } = parseArgs({
  options: {
    model: { type: 'string', multiple: true, default: [] },
    texts: { type: 'string', default: '1000' },
    tokens: { type: 'string', default: '16' },
    only: { type: 'string', default: 'llama,tokens,gguf,peft,mlx,go' },
  },
})
const wanted = new Set(values.only.split(','))
const count = Number(values.tokens)

/** llama.cpp: whole models and the adapter on its base say what Lowrank says, and texts have the tokens of transformers. */
async function withLlamaCpp(model: string, adapter: string, work: string): Promise<void> {
  const llamaCpp = await findLlamaCpp()
  if (llamaCpp === undefined) return
  const said = await sayings(model, adapter, count)
  const base = await write({ model, to: 'gguf', dtype: 'f32', output: join(work, 'base.gguf') })
  const lora = await write({ model, adapter, to: 'gguf-lora', output: join(work, 'lora.gguf') })
  const cases = [
    {
      what: 'GGUF F32',
      file: await write({ model, adapter, to: 'gguf', dtype: 'f32', output: join(work, 'f32.gguf') }),
      tie: 0.02,
    },
    {
      what: 'GGUF F16',
      file: await write({ model, adapter, to: 'gguf', dtype: 'f16', output: join(work, 'f16.gguf') }),
      tie: 0.1,
    },
    { what: 'GGUF F32 of the base with the GGUF LoRA', file: base, lora, tie: 0.02 },
  ]
  for (const { what, file, tie, ...options } of cases) {
    const llama = await openLlamaCpp(llamaCpp, file, options)
    const found: number[][] = []
    for (const { ids, tokens } of said) found.push(await llama.greedy(ids, tokens.length))
    compareTokens(`${basename(model)}: ${what} in ${llama.version}`, said, found, tie)
    await llama.close()
  }
  // Without its adapter the base says something else, or nothing was shown.
  const plain = await openLlamaCpp(llamaCpp, base)
  const other = await plain.greedy(said[0]!.ids, count)
  report(String(other) !== String(said[0]!.tokens), `${basename(model)}: the base alone says something else`)
  await plain.close()
}

/** The tokens that llama.cpp makes of hard texts, beside those of transformers. */
async function withTokens(model: string, work: string, python: string): Promise<void> {
  const llamaCpp = await findLlamaCpp()
  if (llamaCpp === undefined) return
  const llama = await openLlamaCpp(
    llamaCpp,
    await write({ model, to: 'gguf', dtype: 'q4_0', output: join(work, 'tokens.gguf') }),
  )
  const out = join(work, 'reference.json')
  await runPython(python, join(scripts, 'tokens.py'), [model, values.texts, '0', out])
  const { texts, ids } = JSON.parse(await readFile(out, 'utf8')) as { texts: string[]; ids: number[][] }
  const wrong = texts.filter((text, i) => String(llama.tokenize(text)) !== String(ids[i]))
  for (const text of wrong.slice(0, 5)) {
    console.error(
      `  ${JSON.stringify(text)}: ${llama.tokenize(text).join(' ')}, not ${ids[texts.indexOf(text)]!.join(' ')}`,
    )
  }
  await llama.close()
  // A text that has the sign for a space itself: which one was meant is lost in SentencePiece, and in llama.cpp.
  const marked = wrong.filter((text) => text.includes('\u2581'))
  const about = marked.length === 0 ? '' : `, ${marked.length} more where the text has the sign U+2581 itself`
  report(
    wrong.length === marked.length,
    `${basename(model)}: tokens of ${texts.length} hard texts in llama.cpp, ${wrong.length - marked.length} differ${about}`,
  )
}

async function withGguf(model: string, work: string, python: string): Promise<void> {
  const plain = await write({ model, to: 'gguf', dtype: 'f32', output: join(work, 'plain.gguf') })
  for (const dtype of ['q8_0', 'q4_0', 'f16', 'bf16'] as const) {
    const file = await write({ model, to: 'gguf', dtype, output: join(work, `of-base-${dtype}.gguf`) })
    const found = await runPython<{ tensors: number; blocks: number; wrong: string[] }>(
      python,
      join(scripts, 'export.py'),
      ['gguf', file, plain],
    )
    for (const name of found.wrong.slice(0, 3)) console.error(`  ${name} differs`)
    report(
      found.wrong.length === 0,
      `${basename(model)}: ${dtype} in the package gguf: ${found.tensors} tensors (${found.blocks} in blocks), ${found.wrong.length} differ in bytes`,
    )
    await rm(file)
  }
}

async function withPeft(model: string, adapter: string, work: string, python: string): Promise<void> {
  const said = await sayings(model, adapter, 1)
  for (const dtype of ['f32', 'bf16'] as const) {
    const output = await write({ model, adapter, to: 'peft', dtype, output: join(work, `peft-${dtype}`) })
    const { logits } = await runPython<{ logits: number[][] }>(python, join(scripts, 'export.py'), [
      'peft',
      model,
      output,
      ...said.map(({ ids }) => ids.join(',')),
    ])
    let largest = 0
    logits.forEach((own, i) =>
      own.forEach((value, j) => (largest = Math.max(largest, Math.abs(value - said[i]!.first[j]!)))),
    )
    report(
      largest < (dtype === 'f32' ? 2e-3 : 0.5),
      `${basename(model)}: ${dtype} in PEFT: logits differ by at most ${largest.toExponential(1)}`,
    )
  }
}

async function withMlx(model: string, adapter: string, work: string): Promise<void> {
  const python = process.env['LOWRANK_MLX_PYTHON']
  if (python === undefined) {
    console.error('skipped what needs mlx-lm: set LOWRANK_MLX_PYTHON (pip install mlx mlx-cpu mlx-lm)')
    return
  }
  const output = await write({ model, adapter, to: 'mlx', output: join(work, 'mlx') })
  const said = (await sayings(model, adapter, Math.min(count, 8))).slice(0, 3)
  const found: number[][] = []
  let name = ''
  for (const { ids, tokens } of said) {
    const args = ['mlx', model, output, String(tokens.length), ids.join(',')]
    const { version, tokens: own } = await runPython<{ version: string; tokens: number[] }>(
      python,
      join(scripts, 'export.py'),
      args,
    )
    name = `mlx-lm ${version}`
    found.push(own)
  }
  compareTokens(`${basename(model)}: adapter in ${name}`, said, found, 0.05)
}

/** Each template of Ollama beside the one in Jinja that it stands for. */
function withGo(): void {
  const roles = { bos_token: '<s>', eos_token: '</s>' }
  const talk: readonly Message[] = [
    { role: 'user', content: 'What is {{ this }}?' },
    { role: 'assistant', content: 'A "test".\nOf two lines.' },
    { role: 'user', content: 'And that?' },
  ]
  const conversations = [talk.slice(0, 1), talk, [{ role: 'system', content: 'Be brief.' }, ...talk]]
  const jobs = Object.values(knownTemplates).flatMap(({ go }) =>
    conversations.map((messages) => ({
      template: go.replaceAll('EOS', roles.eos_token),
      system: messages.find(({ role }) => role === 'system')?.content ?? '',
      messages: messages.map(({ role, content }) => ({ role, content })),
    })),
  )
  let texts: string[]
  try {
    const options = { input: JSON.stringify(jobs), env: { ...process.env, GOFLAGS: '-mod=mod', GO111MODULE: 'off' } }
    texts = JSON.parse(execFileSync('go', ['run', join(scripts, 'ollama_template.go')], options).toString()) as string[]
  } catch (error) {
    console.error(`skipped the templates of Ollama: Go is not there (${(error as Error).message.split('\n')[0]})`)
    return
  }
  Object.entries(knownTemplates).forEach(([name, { jinja }], i) => {
    const template = new ChatTemplate(jinja, name, roles)
    const wrong = conversations.filter((messages, j) => {
      const { text } = template.render({ messages }, { prompt: true })
      const bare = jinja.includes('bos_token') ? text.slice(roles.bos_token.length) : text
      const own = texts[i * conversations.length + j]
      if (own !== bare) console.error(`  ${JSON.stringify(own)}, not ${JSON.stringify(bare)}`)
      return own !== bare
    })
    report(
      wrong.length === 0,
      `template ${name} in Go's text/template: ${conversations.length} conversations, ${wrong.length} differ`,
    )
  })
}

const python = await findPython()
if (wanted.has('go')) withGo()
for (const model of values.model) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-export-'))
  try {
    const adapter = join(work, 'adapter')
    await makeAdapter(model, adapter)
    if (wanted.has('llama')) await withLlamaCpp(model, adapter, work)
    if (python !== undefined && wanted.has('tokens')) await withTokens(model, work, python)
    if (python !== undefined && wanted.has('gguf')) await withGguf(model, work, python)
    if (python !== undefined && wanted.has('peft')) await withPeft(model, adapter, work, python)
    if (wanted.has('mlx')) await withMlx(model, adapter, work)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
