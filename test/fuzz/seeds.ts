/* The files that are damaged: every kind that Lowrank reads, made by Lowrank itself, a few KB each. */
import { cp, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { quantizeOptions } from '../../src/commands/options.fixture.ts'
import { parseTrainConfig, type TrainConfigInput } from '../../src/config/index.ts'
import { runFinetune } from '../../src/tasks/finetune.ts'
import { runQuantize } from '../../src/tasks/quantize.ts'
import { LowrankError } from '../../src/util/errors.ts'
import { writeSmallTokenizer } from '../small-tokenizer.ts'
import { resultOf } from '../../src/util/task.ts'

/** Bytes and the first merges of the quickstart's tokenizer. */
const vocabulary = 300

const shape = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: vocabulary,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 128,
  rms_norm_eps: 0.00001,
  rope_theta: 10000,
  hidden_act: 'silu',
  initializer_range: 0.3,
  eos_token_id: 0,
}

/** What differs from `shape`. */
const models: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  plain: { tie_word_embeddings: true, attention_bias: true, mlp_bias: true, torch_dtype: 'float32' },
  untied: {
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
    rope_scaling: {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
  },
}

/** The options of the runs that are resumed and replayed, but for their paths. */
export const runOptions = {
  maxSteps: 3,
  maxLength: 48,
  perDeviceTrainBatchSize: 2,
  gradientAccumulationSteps: 2,
  learningRate: 0.02,
  loraDropout: 0.1,
  bias: 'lora_only',
  saveSteps: 1,
  evalSteps: 1,
  loadBestModelAtEnd: true,
  threads: 1,
} as const satisfies Partial<TrainConfigInput>

const examples = [
  { prompt: 'The sky is', completion: ' blue.' },
  { prompt: 'Two and two are', completion: ' four.' },
  { prompt: 'Water is', completion: ' wet, and cold.' },
  { prompt: 'Caf\u00e9 \u2460:', completion: ' \ud83d\ude00 ok' },
  { prompt: '', completion: 'Nothing.' },
  { prompt: 'Category:', completion: ' shipping' },
]

const quickstart = fileURLToPath(new URL('../../../examples/quickstart/model', import.meta.url))

/** A configuration file as a user writes it. */
const yaml = `# A run
model: models/plain
train: train.jsonl
output_dir: out
r: 4
lora_alpha: 8
target_modules: [q_proj, v_proj]
rank_pattern: {layers.0.self_attn.q_proj: 2}
learning_rate: 1e-3
lr_scheduler_type: cosine
packing: true
max_shard_size: 5GB
`

/**
 * Writes all of it below `root`: `models/NAME`, `adapter` (with everything that an adapter can have), `train.jsonl`, `valid.jsonl`,
 * `run.yaml`, `runs/done`, and `runs/stopped`, which was cancelled after two of its three steps.
 */
export async function makeSeeds(root: string): Promise<void> {
  await mkdir(root, { recursive: true })
  await writeFile(join(root, 'train.jsonl'), examples.map((example) => `${JSON.stringify(example)}\n`).join(''))
  await writeFile(
    join(root, 'valid.jsonl'),
    `${examples
      .slice(1, 4)
      .map((one) => JSON.stringify(one))
      .join('\n')}\n`,
  )
  await writeFile(join(root, 'run.yaml'), yaml)
  const [train, valid] = [join(root, 'train.jsonl'), join(root, 'valid.jsonl')]
  const folder = (name: string): string => join(root, 'models', name)
  for (const [name, changes] of Object.entries(models)) {
    const empty = join(root, 'shape')
    await writeShape(empty, changes)
    await run({ method: 'full', init: 'random', model: empty, train, outputDir: folder(name), ...plainRun })
    await rm(empty, { recursive: true })
  }
  const sharded = { model: folder('untied'), outputDir: folder('sharded'), maxShardSize: '8KB' }
  await run({ method: 'full', train, ...sharded, ...plainRun })
  for (const [name, options] of Object.entries({ nf4: {}, int8: { loadIn8bit: true } })) {
    const config = quantizeOptions.parse({ model: folder('plain'), output: folder(name), ...options })
    await resultOf(runQuantize(config, { cancelled: () => false }))
  }
  await run({
    model: folder('untied'),
    train,
    outputDir: join(root, 'adapter'),
    r: 2,
    targetModules: 'all-linear',
    rankPattern: { 'layers.1.self_attn.q_proj': 3 },
    alphaPattern: { 'layers.0.mlp.up_proj': 4 },
    modulesToSave: ['lm_head'],
    ...plainRun,
  })
  const common = { ...runOptions, model: folder('plain'), train, valid }
  await run({ ...common, outputDir: join(root, 'runs/done') })
  await run({ ...common, outputDir: join(root, 'runs/stopped') }, 2)
  // As the trainer left them: the folders of runs, to be read by reports.
  await cp(join(root, 'runs/done'), join(root, 'runs/other'), { recursive: true })
}

const plainRun = { maxSteps: 2, maxLength: 48, learningRate: 0.05, saveStrategy: 'no', threads: 1 } as const

async function writeShape(folder: string, changes: Readonly<Record<string, unknown>>): Promise<void> {
  await writeSmallTokenizer(quickstart, folder, vocabulary)
  await writeFile(join(folder, 'config.json'), JSON.stringify({ ...shape, ...changes }, null, 2))
}

/** Runs to the end, or is cancelled after a step. */
async function run(config: TrainConfigInput, cancelAfter = Infinity): Promise<void> {
  let step = 0
  try {
    for await (const event of runFinetune(parseTrainConfig(config), { cancelled: () => step >= cancelAfter })) {
      if (event.type === 'step') step = event.step
    }
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === 'cancelled')) throw error
  }
}
