/*
 * What large data take: a file of generated prompts and completions and one of chats (prose.ts), tokenized into a cache and trained on for
 * one step; the same again from the cache; and 1 MB of them, for what the model takes by itself. Each run is a process of its own,
 * whose memory, with that of the tokenizer beside it, is looked at five times a second (on Linux).
 *
 *     npm run bench:data -- --model DIR [--size 1GB] [--dir DIR]
 *
 * The folder (by default in the system's folder for temporary files) needs twice the size free; what was written is removed at the end.
 */
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseSize } from '../src/config/size.ts'
import { finetune } from '../src/index.ts'
import { formatSize } from '../src/util/format.ts'
import { type ProseKind, proseLines } from './prose.ts'
import { modelFolder, runNode } from './python.ts'
import { flagValue } from './training-step.ts'

interface Result {
  /** Until the data are there, and until the first step is done. */
  readonly data: number
  readonly step: number
  readonly examples: number
  readonly tokens: number
  /** Highest memory of both processes until the data are there, and in all. */
  readonly dataMemory: number
  readonly memory: number
  /** Seconds of processors until the data are there. */
  readonly processors: number
}

/** Writes lines until they are so many bytes. */
function write(path: string, kind: ProseKind, bytes: number): void {
  const file = openSync(path, 'w')
  let [written, text] = [0, '']
  for (const line of proseLines(kind, 1)) {
    text += `${line}\n`
    if (text.length < 4e5) continue
    written += writeSync(file, text)
    text = ''
    if (written >= bytes) break
  }
  closeSync(file)
}

/** Memory and processor time of this process and those that it started; of its own alone where that is not Linux. */
function used(): { readonly memory: number; readonly processors: number } {
  const own = process.cpuUsage()
  let [memory, processors] = [process.memoryUsage.rss(), (own.user + own.system) / 1e6]
  try {
    for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one))) {
      const fields = readFileSync(`/proc/${name}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ')
      if (fields[1] !== String(process.pid)) continue
      memory += Number(fields[21]) * 4096
      processors += (Number(fields[11]) + Number(fields[12])) / 100
    }
  } catch {
    // A process has just ended, or there is no /proc.
  }
  return { memory, processors }
}

async function run(model: string, train: string, work: string): Promise<Result> {
  const begun = performance.now()
  const seconds = (): number => (performance.now() - begun) / 1000
  let highest = 0
  let processors = 0
  const timer = setInterval(() => {
    const now = used()
    highest = Math.max(highest, now.memory)
    processors = Math.max(processors, now.processors)
  }, 200)
  let result = { data: 0, step: 0, examples: 0, tokens: 0, dataMemory: 0, memory: 0, processors: 0 }
  const events = finetune({
    model,
    train,
    outputDir: join(work, 'out'),
    overwriteOutputDir: true,
    dataCache: join(work, 'cache'),
    maxLength: 512,
    perDeviceTrainBatchSize: 4,
    maxSteps: 1,
    saveStrategy: 'no',
    activations: 'recompute',
  })
  for await (const event of events) {
    if (event.type === 'status' && event.message.startsWith('tokenizing')) console.error(event.message)
    if (event.type === 'data') {
      const { examples, tokens } = event.train
      result = { ...result, data: seconds(), examples, tokens, dataMemory: highest, processors }
    }
    if (event.type === 'step') result = { ...result, step: seconds() }
    if (event.type === 'done') result = { ...result, memory: Math.max(highest, event.peakMemory) }
  }
  clearInterval(timer)
  return result
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const child = flagValue(args, '--child')
if (child !== undefined) {
  console.log(JSON.stringify(await run(model, flagValue(args, '--train') ?? '', child)))
} else {
  const bytes = parseSize(flagValue(args, '--size') ?? '1GB')
  if (bytes === undefined) throw new Error('--size: a size such as 200MB or 1GB is expected')
  const work = await mkdtemp(join(flagValue(args, '--dir') ?? tmpdir(), 'lowrank-data-'))
  const measure = (train: string): Promise<Result> =>
    runNode<Result>(fileURLToPath(import.meta.url), ['--model', model, '--child', work, '--train', train])
  try {
    const files = (name: string, each: number): string =>
      (['pairs', 'chats'] as const)
        .map((kind) => {
          const path = join(work, `${name}-${kind}.jsonl`)
          write(path, kind, each)
          return path
        })
        .join()
    const [large, small] = [files('large', bytes / 2), files('small', 4e5)]
    const cores = `${availableParallelism()} cores, of which ${loadavg()[0]!.toFixed(1)} were asked for before`
    const alone = await measure(small)
    const first = await measure(large)
    const second = await measure(large)
    const mb = bytes / 1e6
    console.log(`${formatSize(bytes)}: ${first.examples} examples, ${first.tokens} tokens; ${cores}`)
    console.log(
      `tokenized in ${first.data.toFixed(0)} s: ${(mb / first.data).toFixed(1)} MB/s, and ${(mb / first.processors).toFixed(1)} MB for each second of a processor`,
    )
    console.log(`memory until then, with the tokenizer beside: ${formatSize(first.dataMemory)}`)
    console.log(
      `memory of the run: ${formatSize(first.memory)}, ${formatSize(first.memory - alone.memory)} more than with 1 MB of data`,
    )
    console.log(
      `the second time: data after ${second.data.toFixed(1)} s, the first step after ${second.step.toFixed(1)} s`,
    )
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
