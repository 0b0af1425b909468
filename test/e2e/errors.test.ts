import { cpSync, existsSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import {
  collect,
  flags,
  listFiles,
  lowrank,
  lowrankHere,
  makeTinyModel,
  quickstart,
  readJson,
  temporaryFolder,
  writeData,
} from './support.ts'

// Wrong input, given to the command line. Each mistake is refused before anything is written: exit code 2, what is wrong
// and where, what to do about it, and no stack.

const folder = temporaryFolder()
const data = writeData(folder)
const outputDir = join(folder, 'out')
const weights = 'model.safetensors'
const base = { model: quickstart, train: data.train, outputDir, maxSteps: 1 }

let models = 0
/** A copy of the quickstart model with something done to it. */
function spoiltModel(spoil: (model: string) => void): string {
  const model = join(folder, `model-${models++}`)
  cpSync(quickstart, model, { recursive: true })
  spoil(model)
  return model
}

function changeJson(path: string, changes: Readonly<Record<string, unknown>>): void {
  writeFileSync(path, JSON.stringify({ ...(readJson(path) as object), ...changes }))
}

/** Rewrites the header of a safetensors file in its own length. */
function changeHeader(path: string, from: string, to: string): void {
  expect(to).toHaveLength(from.length)
  const bytes = readFileSync(path)
  const at = bytes.indexOf(from)
  expect(at).toBeGreaterThan(0)
  bytes.write(to, at)
  writeFileSync(path, bytes)
}

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const good = '{"prompt":"a","completion":"b"}'
const adapterOfAnother = join(folder, 'adapter-of-another')

beforeAll(async () => {
  const model = await makeTinyModel(folder)
  await collect({ ...base, model, outputDir: adapterOfAnother })
})

interface Mistake {
  readonly mistake: string
  /** The command line after `train`; paths are made when the test runs. */
  readonly args: () => string[]
  /** What standard error must say, besides the hint. */
  readonly says: readonly (string | RegExp)[]
  readonly hint: string | RegExp
}

const with_ = (options: Parameters<typeof flags>[0]) => (): string[] => flags({ ...base, ...options })

const mistakes: readonly Mistake[] = [
  {
    mistake: 'a model folder that is not there',
    args: with_({ model: join(folder, 'nowhere') }),
    says: [join(folder, 'nowhere'), 'no such file or directory'],
    hint: 'A model folder holds config.json',
  },
  {
    mistake: 'a model folder without weights',
    args: () => flags({ ...base, model: spoiltModel((model) => truncateSync(join(model, weights), 4)) }),
    says: [weights, '4 bytes are too few'],
    hint: /complete/,
  },
  {
    mistake: 'config.json of a family that is not supported',
    args: () =>
      flags({ ...base, model: spoiltModel((model) => changeJson(join(model, 'config.json'), { model_type: 'lama' })) }),
    says: ['config.json: model_type "lama" is not supported (supported: llama'],
    hint: 'Did you mean "llama"?',
  },
  {
    mistake: 'weights that were cut while downloading',
    args: () => flags({ ...base, model: spoiltModel((model) => truncateSync(join(model, weights), 1_000_000)) }),
    says: [weights, '1000000'],
    hint: /complete|[Dd]ownload/,
  },
  {
    mistake: 'a tensor of another shape than config.json says',
    args: () =>
      flags({
        ...base,
        model: spoiltModel((model) => changeJson(join(model, 'config.json'), { intermediate_size: 256 })),
      }),
    says: [weights, 'model.layers.0.mlp.gate_proj.weight', '[512, 192]', '[256, 192]'],
    hint: /config\.json/,
  },
  {
    mistake: 'a tensor that is missing',
    args: () =>
      flags({
        ...base,
        model: spoiltModel((model) =>
          changeHeader(
            join(model, weights),
            '"model.layers.4.mlp.up_proj.weight"',
            '"model.layers.4.mlp.xx_proj.weight"',
          ),
        ),
      }),
    says: ['model.layers.4.mlp.up_proj.weight', 'not in the checkpoint'],
    hint: /config\.json/,
  },
  {
    mistake: 'a tokenizer larger than the embedding',
    // Random weights, since those of the file have the shape that config.json had.
    args: () => {
      const model = spoiltModel((folder) => changeJson(join(folder, 'config.json'), { vocab_size: 100 }))
      return flags({ ...base, model, method: 'full', init: 'random' })
    },
    says: [/train.jsonl:1: token ".+" \(id \d+\)/, "the model's embedding has 100 rows"],
    hint: /tokenizer/,
  },
  {
    mistake: 'malformed lines, all reported with their numbers',
    args: () =>
      flags({
        ...base,
        train: file('bad.jsonl', `${good}\n{"prompt":\n${good}\n[1]\n{"prompt":1,"completion":"b"}\n{"prompt":"a"}\n`),
      }),
    says: [
      'bad.jsonl: 4 malformed lines',
      /bad\.jsonl:2: /,
      'bad.jsonl:4: a list, not a JSON object',
      'bad.jsonl:5: "prompt" is the number 1, not text',
      'bad.jsonl:6: "completion" is missing',
    ],
    hint: '--skip-bad-lines',
  },
  {
    mistake: 'a maximal length that leaves no label',
    args: with_({ maxLength: 5 }),
    says: [data.train, 'no example left', '16 whose prompt fills maxLength (5 tokens)'],
    hint: '--max-length',
  },
  {
    mistake: 'a training file that is not there',
    args: with_({ train: join(folder, 'none.jsonl') }),
    says: [join(folder, 'none.jsonl'), 'there is no file'],
    hint: 'Check the path',
  },
  {
    mistake: 'a training file that is a folder without data',
    args: () => flags({ ...base, train: mkdtempSync(join(folder, 'empty-')) }),
    says: [join(folder, 'empty-'), 'has no file of data: it is empty'],
    hint: '.jsonl',
  },
  {
    mistake: 'a validation file without an example',
    args: () => flags({ ...base, valid: file('empty.jsonl', '') }),
    says: ['empty.jsonl: no example left', 'the file is empty'],
    hint: /"prompt" and "completion"/,
  },
  {
    mistake: 'misspelt and impossible flags, all at once',
    args: () => [...flags({ ...base, learningRate: -1 }), '--lora-alfa', '16'],
    says: ['2 problems', '--learning-rate: found -1', '--lora-alfa: unknown option. Did you mean "--lora-alpha"?'],
    hint: 'lowrank train --help',
  },
  {
    mistake: 'a misspelt key in the YAML file',
    args: () => [file('misspelt.yaml', `model: ${quickstart}\n# a line between\nlora_alfa: 16\n`), ...flags(base)],
    says: ['misspelt.yaml:3: lora_alfa: unknown option. Did you mean "lora_alpha"?'],
    hint: 'lowrank train --help',
  },
  {
    mistake: 'a YAML file that is not there',
    args: () => [join(folder, 'none.yaml'), ...flags(base)],
    says: [join(folder, 'none.yaml'), 'no such file'],
    hint: 'YAML file of options',
  },
  {
    mistake: 'a misspelt target module',
    args: with_({ targetModules: 'q_prj,v_proj' }),
    says: ['targetModules: "q_prj" matches no linear layer of llama (has q_proj, k_proj,'],
    hint: 'Did you mean "q_proj"?',
  },
  {
    mistake: 'a module to save that does not exist',
    args: with_({ modulesToSave: 'lm_haed' }),
    says: ['modulesToSave: "lm_haed" matches no module', 'lm_head'],
    hint: 'Did you mean "lm_head"?',
  },
  {
    mistake: 'an adapter that was made for another model',
    args: () => flags({ ...base, adapter: adapterOfAnother }),
    says: [adapterOfAnother, 'model.layers.0.self_attn.q_proj.lora_', '[8, 32]', '[8, 192]'],
    hint: /adapter made for this base model/,
  },
  {
    mistake: 'another shape for an adapter that has one',
    args: () => flags({ ...base, adapter: adapterOfAnother, r: 4 }),
    says: ['--r: has no meaning with --adapter'],
    hint: 'lowrank train --help',
  },
  {
    mistake: 'a folder without an adapter',
    args: with_({ adapter: folder }),
    says: [join(folder, 'adapter_config.json')],
    hint: 'An adapter folder holds adapter_config.json',
  },
]

test(`there are ${mistakes.length} mistakes`, () => {
  expect(mistakes.length).toBeGreaterThanOrEqual(20)
})

test.each(mistakes)('$mistake', async ({ mistake, args, says, hint }) => {
  const untouched = join(folder, `out-${mistake.replaceAll(' ', '-')}`)
  const { code, stdout, stderr } = await lowrankHere(['train', ...args(), '--output-dir', untouched])
  expect(existsSync(untouched), 'an output folder was made').toBe(false)
  expect(stderr).toMatch(/^error: /m)
  for (const part of says) {
    if (typeof part === 'string') expect(stderr).toContain(part)
    else expect(stderr).toMatch(part)
  }
  expect(code, stderr).toBe(2)
  const hints = /^hint: (.*)$/m.exec(stderr)?.[1]
  expect(hints, stderr).toBeDefined()
  if (typeof hint === 'string') expect(hints).toContain(hint)
  else expect(hints).toMatch(hint)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(stderr).not.toContain('internal')
  expect(stdout).toBe('')
})

test('an output folder that is a file', async () => {
  const path = file('taken', 'mine')
  const { code, stderr } = await lowrankHere(['train', ...flags({ ...base, outputDir: path })])
  expect(stderr).toMatch(/^error: .*taken/m)
  expect(stderr).toMatch(/^hint: .*folder/m)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(code).toBe(2)
  expect(readFileSync(path, 'utf8')).toBe('mine')
})

test('eval refuses in the same way', async () => {
  const args = flags({ model: quickstart, data: data.valid, adapter: adapterOfAnother })
  const { code, stdout, stderr } = await lowrank(['eval', ...args, '--json'])
  expect(code).toBe(2)
  expect(stdout).toBe('')
  expect(stderr).toMatch(/^error: .*lora_A\.weight has shape \[8, 32\]/m)
})

test('weights that are far too large end the run with code 1, no adapter, and a record of the failure', async () => {
  const path = join(folder, 'diverged')
  const model = spoiltModel((copy) => {
    const bytes = readFileSync(join(copy, weights))
    // The last tensor of the file, bf16: the largest numbers.
    for (let at = bytes.length - 64; at < bytes.length; at += 2) bytes.writeUInt16LE(0x7f7f, at)
    writeFileSync(join(copy, weights), bytes)
  })
  const { code, stderr } = await lowrank(['train', ...flags({ ...base, model, outputDir: path })])
  expect(stderr).toMatch(/^error: step 1: the loss is NaN/m)
  expect(stderr).toMatch(/^hint: /m)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(code).toBe(1)
  expect(listFiles(path)).toEqual(['metrics.jsonl', 'run.json'])
  expect(readJson(join(path, 'run.json'))).toMatchObject({ status: 'failed' })
})
