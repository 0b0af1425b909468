/* The calls that read files, each with the files that it reads and what its result is. */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as api from '../../src/index.ts'
import { loadConfigFile, trainOptions, type TrainConfigInput } from '../../src/config/index.ts'
import { openGenerator } from '../../src/generate/open.ts'
import { directTasks as tested, type Tasks as Tested } from '../tasks.ts'
import { runOptions } from './seeds.ts'

/** The tasks of the public API, and what a loaded model is for. */
export type Tasks = Tested & {
  complete(options: { model: string; adapter?: string; threads: number }, prompt: string): Promise<string>
}

/** As a user calls them, in a worker thread each. */
export const apiTasks: Tasks = {
  ...api,
  async complete(options, prompt) {
    const model = await api.loadModel(options)
    try {
      return await model.generate(prompt, { maxNewTokens: 4 })
    } finally {
      await model.close()
    }
  },
}

/** What the worker threads run, in this thread: three times as fast, since no thread has to start. */
export const directTasks: Tasks = {
  ...tested,
  async complete(options, prompt) {
    await using generator = await openGenerator(options)
    const adapter = options.adapter === undefined ? undefined : await generator.generation.adapter(options.adapter)
    let text = ''
    for await (const token of generator.generate([prompt], { maxNewTokens: 4, adapter })) text += token.text
    return text
  },
}

export interface Call {
  readonly name: string
  /** What it needs of the seeds. */
  readonly uses: readonly string[]
  /** Of those, what it reads and is damaged: files, or folders for all files below. */
  readonly damaged: readonly string[]
  /** Its result: a value of JSON, in which paths are below `root`. */
  readonly run: (tasks: Tasks, root: string) => Promise<unknown>
}

const threads = 1
const reading = { maxLength: 48, threads } as const
const training = { ...reading, maxSteps: 1, learningRate: 0.01, saveStrategy: 'no', seed: 3 } as const

/** The course of a run, and the SHA-256 of what it left. */
async function finetune(tasks: Tasks, config: TrainConfigInput): Promise<unknown> {
  const steps: unknown[] = []
  for await (const event of tasks.finetune(config)) {
    if (event.type === 'step') steps.push([event.step, event.loss, event.gradNorm])
  }
  return { steps, weights: await weightsIn(config.outputDir) }
}

async function evaluate(tasks: Tasks, root: string, what: { model: string; adapter?: string }): Promise<unknown> {
  // The perplexity of a loss of thousands is infinite, and right.
  const { perplexity: _, ...figures } = await tasks.evaluate({ ...what, data: join(root, 'valid.jsonl'), ...reading })
  return figures
}

async function weightsIn(folder: string): Promise<unknown> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.safetensors')).sort()
  const hashes = names.map(async (name) => {
    const bytes = await readFile(join(folder, name))
    return [name, createHash('sha256').update(bytes).digest('hex')]
  })
  return await Promise.all(hashes)
}

function evaluation(model: string, files = ['']): Call {
  return {
    name: `evaluate ${model}`,
    uses: [`models/${model}`, 'valid.jsonl'],
    damaged: files.map((name) => join('models', model, name)),
    run: (tasks, root) => evaluate(tasks, root, { model: join(root, 'models', model) }),
  }
}

const inModel = (model: string, ...names: string[]): string[] => names.map((name) => join('models', model, name))
const textFiles = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json']

export const calls: readonly Call[] = [
  evaluation('plain', ['config.json', 'model.safetensors', ...textFiles]),
  evaluation('untied', ['config.json', 'model.safetensors']),
  evaluation('sharded'),
  evaluation('nf4', ['config.json', 'model.safetensors']),
  evaluation('int8', ['config.json', 'model.safetensors']),
  {
    name: 'evaluate data',
    uses: ['models/plain', 'valid.jsonl'],
    damaged: ['valid.jsonl'],
    run: (tasks, root) => evaluate(tasks, root, { model: join(root, 'models/plain') }),
  },
  {
    name: 'evaluate adapter',
    uses: ['models/untied', 'adapter', 'valid.jsonl'],
    damaged: ['adapter/adapter_config.json', 'adapter/adapter_model.safetensors', 'adapter/run.json'],
    run: (tasks, root) => evaluate(tasks, root, { model: join(root, 'models/untied'), adapter: join(root, 'adapter') }),
  },
  {
    name: 'generate',
    uses: ['models/untied', 'adapter'],
    damaged: [
      ...inModel('untied', 'config.json', ...textFiles),
      'adapter/adapter_config.json',
      'adapter/adapter_model.safetensors',
    ],
    run: (tasks, root) =>
      tasks.complete({ model: join(root, 'models/untied'), adapter: join(root, 'adapter'), threads }, 'Ticket from'),
  },
  {
    name: 'finetune lora',
    uses: ['models/plain', 'train.jsonl'],
    damaged: [...inModel('plain', 'config.json', 'model.safetensors', ...textFiles), 'train.jsonl', 'train.jsonl'],
    run: (tasks, root) =>
      finetune(tasks, {
        model: join(root, 'models/plain'),
        train: join(root, 'train.jsonl'),
        outputDir: join(root, 'out'),
        ...training,
      }),
  },
  {
    name: 'finetune adapter',
    uses: ['models/untied', 'adapter', 'train.jsonl'],
    damaged: ['adapter/adapter_config.json', 'adapter/adapter_model.safetensors'],
    run: (tasks, root) =>
      finetune(tasks, {
        model: join(root, 'models/untied'),
        adapter: join(root, 'adapter'),
        train: join(root, 'train.jsonl'),
        outputDir: join(root, 'out'),
        ...training,
      }),
  },
  {
    name: 'finetune full',
    uses: ['models/sharded', 'train.jsonl'],
    damaged: ['models/sharded'],
    run: (tasks, root) =>
      finetune(tasks, {
        method: 'full',
        model: join(root, 'models/sharded'),
        train: join(root, 'train.jsonl'),
        outputDir: join(root, 'out'),
        ...training,
      }),
  },
  {
    name: 'finetune nf4',
    uses: ['models/nf4', 'train.jsonl'],
    damaged: inModel('nf4', 'config.json', 'model.safetensors'),
    run: (tasks, root) =>
      finetune(tasks, {
        model: join(root, 'models/nf4'),
        train: join(root, 'train.jsonl'),
        outputDir: join(root, 'out'),
        ...training,
      }),
  },
  {
    name: 'resume',
    uses: ['models/plain', 'train.jsonl', 'valid.jsonl', 'runs/stopped'],
    damaged: ['runs/stopped', 'runs/stopped/checkpoint-2'],
    run: async (tasks, root) => {
      const outputDir = join(root, 'runs/stopped')
      const config = { ...runOptions, model: join(root, 'models/plain'), resume: true, outputDir }
      await finetune(tasks, { ...config, train: join(root, 'train.jsonl'), valid: join(root, 'valid.jsonl') })
      // How many steps were left depends on the checkpoint that was whole; what comes out does not.
      return await weightsIn(outputDir)
    },
  },
  {
    name: 'replay',
    // The run names model and data where the seeds are.
    uses: ['runs/done'],
    damaged: ['runs/done/run.json', 'runs/done/metrics.jsonl', 'runs/done/checkpoint-2', 'runs/done/checkpoint-1'],
    run: async (tasks, root) => {
      const run = join(root, 'runs/done')
      const { loss, equal, examples } = await tasks.replay(run, { step: 3 })
      return { loss, equal, examples }
    },
  },
  {
    name: 'quantize',
    uses: ['models/untied'],
    damaged: inModel('untied', 'config.json', 'model.safetensors'),
    run: async (tasks, root) => {
      await tasks.quantize({ model: join(root, 'models/untied'), output: join(root, 'out') })
      return await weightsIn(join(root, 'out'))
    },
  },
  {
    name: 'reports',
    uses: ['runs/done', 'runs/other'],
    damaged: ['runs/done/run.json', 'runs/done/metrics.jsonl', 'runs/done/metrics.jsonl'],
    run: async (_, root) => {
      const [done, other] = ['done', 'other'].map((name) => join(root, 'runs', name)) as [string, string]
      const list = await api.listRuns(join(root, 'runs'))
      const page = await readFile(await api.writeReport(done), 'utf8')
      const comparison = await api.compareRuns([done, other])
      // What is put in by `mutate` is text, and never markup.
      return { list, comparison, injected: page.includes('<fuzz>') }
    },
  },
  {
    name: 'configuration file',
    uses: ['run.yaml'],
    damaged: ['run.yaml'],
    run: async (_, root) => trainOptions.read([loadConfigFile(join(root, 'run.yaml'))]),
  },
]
