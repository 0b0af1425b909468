import { join } from 'node:path'
import { type MethodName, methodNames, rateFor, type TrainConfig, withMethod } from '../config/index.ts'
import { writeFileAtomic } from '../formats/atomic.ts'
import {
  type CellInput,
  type CellRun,
  compareCells,
  type ComparedCell,
  comparisonTable,
  rateText,
} from '../jobs/comparison.ts'
import type { Job, JobOf } from '../jobs/job.ts'
import { experimentPage } from '../report/compare.ts'
import { readRun } from '../runs/read.ts'
import { count } from '../util/format.ts'
import { status, type StatusEvent, type Task, type TaskContext } from '../util/task.ts'
import { Experiment, type Wanted } from './experiment.ts'
import { whatDoesNotFit } from './fit.ts'

export interface CompareConfig extends TrainConfig {
  readonly methods: readonly MethodName[]
  readonly ranks: readonly number[]
  /** How many, from `seed` on. */
  readonly seeds: number
  readonly learningRates?: Readonly<Record<string, number>> | undefined
  readonly tuneLr: boolean
  readonly workers: number
}

export interface CompareResult {
  /** Has the jobs, the runs, `compare.json` and the page. */
  readonly folder: string
  readonly page: string
  readonly cells: readonly ComparedCell[]
  /** The cell that the others are compared with: full fine-tuning, or the one with the lowest loss. */
  readonly reference: string | undefined
  /** How to read the table, in sentences. */
  readonly notes: readonly string[]
}

/** A method at a rank. */
interface Cell {
  readonly method: MethodName
  readonly r: number | undefined
}

/**
 * Trains each method at each rank with each seed on the same data in the same order, measures what came of it, and compares.
 *
 * @throws LowrankError what is wrong with the input, before anything is trained; `cancelled`: the same call goes on.
 */
export function compareTask(entry: URL): Task<CompareConfig, StatusEvent, CompareResult> {
  return async function* (config, { cancelled }) {
    const folder = join(config.outputDir, 'compare')
    await using experiment = await Experiment.open({ folder, entry, workers: config.workers, cancelled })
    const cells = cellsOf(config)
    const problems = yield* misfits(config, cells, experiment, { cancelled })
    const fitting = cells.filter((cell) => !problems.has(cell))
    const rates = yield* ratesOf(config, fitting, experiment)
    const wanted = fitting.flatMap((cell) =>
      seedsOf(config).map((seed) => ({ cell, seed, ...wantedOf(config, cell, seed, rates.get(cell.method)!) })),
    )
    const trained = yield* experiment.train(wanted)
    const done = wanted.filter((_, i) => trained[i]!.state.status === 'done')
    const measured = new Map((yield* experiment.measure(done)).map((job, i) => [done[i]!.id, job]))
    const inputs = cells.map((cell): CellInput => {
      const learningRate = rates.get(cell.method) ?? configuredRate(config, cell.method)
      const failures: string[] = []
      const runs = wanted.flatMap((one, i): CellRun[] => {
        if (one.cell !== cell) return []
        const job = trained[i] as JobOf<'train'>
        failures.push(...failureOf(job), ...failureOf(measured.get(one.id)))
        if (job.result === undefined) return []
        const served = (measured.get(one.id) as JobOf<'measure'> | undefined)?.result
        return [{ seed: one.seed, folder: job.config.outputDir, result: job.result, served }]
      })
      return { ...cell, learningRate, runs, problem: problems.get(cell) ?? failures[0] }
    })
    const { cells: compared, reference } = compareCells(inputs)
    const notes = notesOf(config, compared, inputs, reference)
    const page = join(folder, 'compare.html')
    const result = { folder, page, cells: compared, reference, notes }
    await writeFileAtomic(join(folder, 'compare.json'), `${JSON.stringify(result, null, 2)}\n`)
    await writeFileAtomic(page, await pageOf(config, result))
    return result
  }
}

function cellsOf({ methods, ranks }: CompareConfig): Cell[] {
  const order = methodNames.filter((name) => methods.includes(name))
  return order.flatMap((method) =>
    method === 'full' ? [{ method, r: undefined }] : ranks.map((r): Cell => ({ method, r })),
  )
}

function seedsOf({ seed, seeds }: CompareConfig): number[] {
  return Array.from({ length: seeds }, (_, i) => seed + i)
}

function configuredRate(config: CompareConfig, method: MethodName): number {
  return config.learningRates?.[method] ?? rateFor(config, method)
}

function wantedOf(config: CompareConfig, { method, r }: Cell, seed: number, learningRate: number): Wanted {
  const rank = r === undefined ? '' : `-r${r}`
  return {
    id: `${method}${rank}-seed${seed}-lr${rateText(learningRate)}`,
    config: trialConfig(config, method, { seed, learningRate, ...(r === undefined ? {} : { r }) }),
  }
}

/** The configuration of a run of an experiment: it has an evaluation at its end, and no trackers of its own. */
export function trialConfig(config: TrainConfig, method: MethodName, changes: Partial<TrainConfig>): TrainConfig {
  const { saveTotalLimit = 1, evalStrategy } = config
  return withMethod(config, method, {
    reportTo: [],
    samples: 0,
    saveTotalLimit,
    evalStrategy: evalStrategy === 'no' ? 'epoch' : evalStrategy,
    ...changes,
  })
}

/** Cells that do not fit into memory, before anything is trained. */
async function* misfits(
  config: CompareConfig,
  cells: readonly Cell[],
  experiment: Experiment,
  context: TaskContext,
): AsyncGenerator<StatusEvent, Map<Cell, string>> {
  yield status('planning memory for each method')
  const [seed] = seedsOf(config)
  const rates = cells.map(({ method }) => configuredRate(config, method))
  const wanted = cells.map((cell, i) => wantedOf(config, cell, seed!, rates[i]!))
  const open: number[] = []
  for (const [i, { id }] of wanted.entries()) if (!(await experiment.isDone(id))) open.push(i)
  const found = yield* whatDoesNotFit(await experiment.configsOf(open.map((i) => wanted[i]!)), context)
  return new Map([...found].map(([i, problem]) => [cells[open[i]!]!, problem]))
}

/** Factors of the learning rate that are tried. */
const factors = [1 / 3, 1, 3]

/** The learning rate of each method: with `tuneLr` the best of three by evaluation loss, at the first rank and seed. */
async function* ratesOf(
  config: CompareConfig,
  cells: readonly Cell[],
  experiment: Experiment,
): AsyncGenerator<StatusEvent, Map<MethodName, number>> {
  const methods = [...new Set(cells.map(({ method }) => method))]
  const rates = new Map(methods.map((method) => [method, configuredRate(config, method)]))
  if (!config.tuneLr) return rates
  const trials = methods.flatMap((method) => {
    const cell = cells.find((one) => one.method === method)!
    return factors.map((factor) => {
      const rate = Number((factor * rates.get(method)!).toPrecision(3))
      return { method, rate, ...wantedOf(config, cell, config.seed, rate) }
    })
  })
  const jobs = yield* experiment.train(trials)
  for (const method of methods) {
    const tried = trials.flatMap((trial, i) => {
      const loss = (jobs[i] as JobOf<'train'>).result?.evalLoss
      return trial.method === method && loss !== undefined ? [{ rate: trial.rate, loss }] : []
    })
    const [best] = tried.toSorted((a, b) => a.loss - b.loss)
    if (best === undefined) continue
    rates.set(method, best.rate)
    yield status(
      `${method}: learning rate ${rateText(best.rate)}, of ${tried.map(({ rate, loss }) => `${rateText(rate)} (${loss.toFixed(4)})`).join(', ')}`,
    )
  }
  return rates
}

function failureOf(job: Job | undefined): string[] {
  return job?.state.status === 'failed' ? [`failed: ${job.state.error.message}`] : []
}

function notesOf(
  config: CompareConfig,
  cells: readonly ComparedCell[],
  inputs: readonly CellInput[],
  reference: string | undefined,
): string[] {
  const notes: string[] = []
  const over = cells.find(({ figures }) => figures?.difference !== undefined)?.figures?.difference?.over
  if (over === 'seeds') {
    notes.push(
      `"within noise": the 95 % interval of the difference to ${reference}, paired over ${config.seeds} seeds, holds 0. ` +
        '± is the standard deviation over the seeds.',
    )
  } else if (over === 'examples') {
    notes.push(
      `One seed: the noise of training is unknown. "within noise" is about the validation examples alone: the 95 % interval of the paired ` +
        `difference to ${reference} holds 0. With --seeds 3 the spread over seeds is measured.`,
    )
  }
  const hashes = new Set(inputs.flatMap(({ runs }) => runs.map(({ result }) => JSON.stringify(result.hashes))))
  if (hashes.size > 1) notes.push('The data have changed between the cells: their losses do not compare.')
  if (config.workers > 1) {
    notes.push(
      `${count(config.workers)} cells ran at once, each with its share of memory: times are longer than those of a run by itself.`,
    )
  }
  return notes
}

async function pageOf(config: CompareConfig, { cells, reference, notes }: CompareResult): Promise<string> {
  const shown = cells.filter(({ folders }) => folders.length > 0)
  const runs = await Promise.all(shown.map(({ folders }) => readRun(folders[0]!)))
  return experimentPage({
    title: `${config.model}: methods compared`,
    runs,
    names: shown.map(({ name }) => name),
    tables: [{ title: 'Methods', ...comparisonTable(cells, reference) }],
    notes,
  })
}
