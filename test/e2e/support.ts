import { Readable } from 'node:stream'
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { EvalResult, EvaluationResult, TrainConfigInput, TrainEvent } from 'lowrank'
import { afterAll, expect } from 'vitest'
import type { Io } from '../../src/cli/io.ts'
import { run } from '../../src/cli/run.ts'
import { snakeCase } from '../../src/config/options.ts'
import type { EventOf } from '../../src/train/events.ts'
import { computeHere, directTasks } from '../tasks.ts'

/** Folder of the package; a script run from here may import 'lowrank'. */
export const root = fileURLToPath(new URL('../..', import.meta.url))

/** A small trained model with its tokenizer, and the texts of its task. */
export const quickstart = join(root, 'examples/quickstart/model')
const texts = join(root, 'examples/quickstart')

/** A folder that is gone after the tests of a file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lowrank-e2e-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** The first examples of the quickstart in a folder of their own; returns the paths of both files. */
export function writeData(folder: string, { train = 16, valid = 8 } = {}): { train: string; valid: string } {
  const copy = (name: string, lines: number): string => {
    const path = join(folder, name)
    const all = readFileSync(join(texts, name), 'utf8').split('\n')
    writeFileSync(path, `${all.slice(0, lines).join('\n')}\n`)
    return path
  }
  return { train: copy('train.jsonl', train), valid: copy('valid.jsonl', valid) }
}

/** The smallest model that trains: two blocks, random weights, biases, the quickstart's tokenizer. */
export async function makeTinyModel(folder: string, changes: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const [shape, model] = [join(folder, 'shape'), join(folder, 'tiny')]
  cpSync(quickstart, shape, { recursive: true, filter: (path) => !path.endsWith('.safetensors') })
  const config = {
    ...(readJson(join(shape, 'config.json')) as object),
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    attention_bias: true,
    mlp_bias: true,
    torch_dtype: 'float32',
    ...changes,
  }
  writeFileSync(join(shape, 'config.json'), JSON.stringify(config))
  const { train } = writeData(shape, { train: 2 })
  const options = { method: 'full', init: 'random', maxSteps: 1, maxLength: 64, saveStrategy: 'no' } as const
  await collect({ ...options, model: shape, train, outputDir: model })
  return model
}

/** Far more steps than any test waits for, and not so many that laying them out takes long. */
export const endless = { perDeviceTrainBatchSize: 4, maxLength: 96, maxSteps: 5000, saveStrategy: 'no' } as const

/** Waits until a run has reported so many steps, or its process has ended. */
export async function untilSteps(
  outputDir: string,
  child: { readonly exitCode: number | null },
  steps = 2,
): Promise<void> {
  const path = join(outputDir, 'metrics.jsonl')
  const reported = (): number => (existsSync(path) ? readFileSync(path, 'utf8').split('"type":"step"').length - 1 : 0)
  while (reported() < steps && child.exitCode === null) await sleep(20)
}

/** Runs a script against the public API, which is ended where it takes `seconds`. */
export async function runScript(text: string, seconds: number): Promise<Outcome> {
  const { child, ended } = startNode(['--input-type=module', '--eval', text])
  const limit = setTimeout(() => child.kill('SIGKILL'), seconds * 1000)
  const outcome = await ended
  clearTimeout(limit)
  return outcome
}

/** All events of a run, which computes in this thread. */
export const collect = async (config: TrainConfigInput): Promise<TrainEvent[]> => all(directTasks.finetune(config))

/** All that there is to come. */
export async function all<T>(events: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const event of events) found.push(event)
  return found
}

export function only<T extends TrainEvent['type']>(events: readonly TrainEvent[], type: T): EventOf<T>[] {
  return events.filter((event): event is EventOf<T> => event.type === type)
}

/** The last element, which must be there. */
export function last<T>(items: readonly T[]): T {
  const item = items.at(-1)
  if (item === undefined) throw new Error('nothing there')
  return item
}

/** The five figures of an evaluation, without what an event has beside them. */
export function figures({ loss, perplexity, tokenAccuracy, labelTokens, examples }: EvalResult): EvalResult {
  return { loss, perplexity, tokenAccuracy, labelTokens, examples }
}

export interface Outcome {
  /** Exit code; null when a signal ended the process. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<Outcome>
}

/** Starts Node.js with these arguments. */
export function startNode(args: readonly string[], cwd = root): Running {
  expect(existsSync(join(root, 'dist/cli.js')), 'npm run build comes first').toBe(true)
  const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject).on('close', (code) => resolve({ code, stdout, stderr }))
  })
  return { child, ended }
}

type Flags = Readonly<Record<string, string | number | boolean>>

/** `{ maxSteps: 3, loadIn4bit: true }` as `--max-steps 3 --load-in-4bit`. */
export function flags(options: Flags): string[] {
  return Object.entries(options).flatMap(([key, value]) => {
    const flag = `--${snakeCase(key).replaceAll('_', '-')}`
    return value === true ? [flag] : [flag, String(value)]
  })
}

/** Starts the real command line. */
export function startLowrank(args: readonly string[], cwd = root): Running {
  return startNode([join(root, 'dist/cli.js'), ...args], cwd)
}

/** Runs the real command line to its end. */
export async function lowrank(args: readonly string[], cwd = root): Promise<Outcome> {
  return await startLowrank(args, cwd).ended
}

/** Runs a command line in this thread: all of the real one but its process and the thread in which it computes. */
export async function lowrankHere(args: readonly string[]): Promise<Outcome> {
  let [stdout, stderr] = ['', '']
  const io: Io = {
    stdin: Readable.from([]),
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    env: {},
    onInterrupt: () => () => undefined,
    exit: () => undefined,
  }
  const code = await run(args, io, computeHere)
  return { code, stdout, stderr }
}

/** `lowrank eval --json`, which must succeed. */
export async function evaluateByCommand(options: Flags): Promise<EvaluationResult> {
  const { code, stdout, stderr } = await lowrank(['eval', ...flags({ ...options, json: true })])
  expect(code, stderr).toBe(0)
  return JSON.parse(stdout) as EvaluationResult
}

export function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'))
}

/** The objects of a JSONL text, one a line. */
export function parseLines<T>(text: string): T[] {
  expect(text.endsWith('\n')).toBe(true)
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as T)
}

/** The events that a run left in its output folder. */
export function readMetrics(folder: string): (TrainEvent & { readonly time: string })[] {
  return parseLines(readFileSync(join(folder, 'metrics.jsonl'), 'utf8'))
}

/** All files below a folder, sorted; none when there is no folder. */
export function listFiles(folder: string): string[] {
  if (!existsSync(folder)) return []
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  return files.map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1)).sort()
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

/** SHA-256 of every file below a folder, by name. */
export function hashFolder(folder: string): Record<string, string> {
  return Object.fromEntries(listFiles(folder).map((name) => [name, sha256(join(folder, name))]))
}

interface Header {
  readonly [name: string]: { readonly shape: readonly number[]; readonly data_offsets: readonly [number, number] }
}

/** Changes files of a checkpoint, and makes it whole again: with the sizes and hashes that it then has. */
export function editCheckpoint(folder: string, edit: (folder: string) => void): void {
  edit(folder)
  const path = join(folder, 'trainer_state.json')
  const { sha256: _, ...record } = readJson(path) as { sha256: string; files: Record<string, object> }
  for (const name of Object.keys(record.files)) {
    const file = join(folder, name)
    record.files[name] = { bytes: readFileSync(file).length, sha256: sha256(file) }
  }
  const hash = createHash('sha256').update(JSON.stringify(record)).digest('hex')
  writeFileSync(path, JSON.stringify({ ...record, sha256: hash }))
}

/** Sets one element, or all, of an f32 tensor in a safetensors file. */
export function writeElements(path: string, name: string, value: number, { at = 0, all = false } = {}): void {
  const bytes = readFileSync(path)
  const start = 8 + Number(bytes.readBigUInt64LE())
  const header = JSON.parse(bytes.toString('utf8', 8, start)) as Header
  const [from, to] = header[name]!.data_offsets
  for (let i = from; i < to; i += 4) if (all || i === from + 4 * at) bytes.writeFloatLE(value, start + i)
  writeFileSync(path, bytes)
}

/** The tensors of a safetensors file sorted by name, each as `read` makes something of it. */
function tensors<T>(path: string, read: (tensor: Header[string], data: Buffer) => T): Record<string, T> {
  const bytes = readFileSync(path)
  const start = 8 + Number(bytes.readBigUInt64LE())
  const { __metadata__: _, ...header } = JSON.parse(bytes.toString('utf8', 8, start)) as Header
  const data = bytes.subarray(start)
  return Object.fromEntries(
    Object.keys(header)
      .sort()
      .map((name) => [name, read(header[name]!, data)]),
  )
}

export function tensorShapes(path: string): Record<string, readonly number[]> {
  return tensors(path, ({ shape }) => shape)
}

/** SHA-256 of the bytes of each tensor. */
export function tensorHashes(path: string): Record<string, string> {
  return tensors(path, ({ data_offsets: [from, to] }, data) =>
    createHash('sha256').update(data.subarray(from, to)).digest('hex'),
  )
}
