import { join } from 'node:path'
import { methodOf, rateFor, type TrainConfig, withMethod } from '../config/index.ts'
import { writeFileAtomic } from '../formats/atomic.ts'
import type { Job, JobOf } from '../jobs/job.ts'
import { rateText } from '../jobs/comparison.ts'
import { type Difference, differenceOf } from '../jobs/noise.ts'
import { rungsOf, survivors } from '../jobs/halving.ts'
import { experimentPage } from '../report/compare.ts'
import { readRun } from '../runs/read.ts'
import { LowrankError } from '../util/errors.ts'
import { number, percent, plural } from '../util/format.ts'
import { status, type StatusEvent, type Task, type TaskContext } from '../util/task.ts'
import { trialConfig } from './compare.ts'
import { Experiment, type Wanted } from './experiment.ts'
import { stepsOf } from './fit.ts'

/** What is chosen by a search. */
export interface Choice {
  readonly r: number
  readonly loraAlpha: number
  readonly learningRate: number
  readonly targetModules: TrainConfig['targetModules']
}

export interface SearchConfig extends TrainConfig {
  readonly startRank: number
  readonly maxRank: number
  /** Share of the evaluation loss that twice the rank has to gain. */
  readonly minGain: number
  readonly rates?: readonly number[] | undefined
  readonly alphas: readonly number[]
  readonly targets: readonly ('config' | 'all-linear')[]
  readonly workers: number
}

/** What was tried in one part of a search: a row a trial. */
export interface SearchStage {
  readonly title: string
  readonly titles: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

export interface SearchResult {
  /** Has the jobs, the runs, `search.json` and the page. */
  readonly folder: string
  readonly page: string
  /** What was found best, and its run. */
  readonly best: Choice & { readonly evalLoss: number; readonly run: string }
  readonly stages: readonly SearchStage[]
  /** Why it ended, and what was seen on the way, in sentences. */
  readonly notes: readonly string[]
}

/** A choice that is tried. */
interface Trial {
  readonly name: string
  readonly choice: Choice
  readonly config: TrainConfig
}

/** Spikes of the loss in one run from which on a base in fp4 is given up for nf4. */
const tooManySpikes = 2

/**
 * Looks for options of an adapter: learning rate, modules and alpha at a low rank, by successive halving (Jamieson and Talwalkar 2016,
 * https://arxiv.org/abs/1502.07943); then doubles the rank as long as that gains more than a threshold and more than chance.
 *
 * @throws LowrankError what is wrong with the input, before anything is trained; `cancelled`: the same call goes on.
 */
export function searchTask(entry: URL): Task<SearchConfig, StatusEvent, SearchResult> {
  return async function* (given, { cancelled }) {
    const folder = join(given.outputDir, 'search')
    const { workers } = given
    await using experiment = await Experiment.open({ folder, entry, workers, cancelled })
    const search = new Search(given, experiment)
    const stages: SearchStage[] = []
    const halved = yield* search.halve({ cancelled })
    stages.push(halved.stage)
    const ladder = yield* search.climb(halved.best)
    stages.push(ladder.stage)
    const { best } = ladder
    const notes = [...search.notes, ladder.reason]
    const page = join(folder, 'search.html')
    const run = experiment.runFolder(best.trial.name)
    const result = {
      folder,
      page,
      best: { ...best.trial.choice, evalLoss: best.loss, run },
      stages,
      notes,
    }
    await writeFileAtomic(join(folder, 'search.json'), `${JSON.stringify(result, null, 2)}\n`)
    const names = search.finished
    const runs = await Promise.all(names.map((name) => readRun(experiment.runFolder(name))))
    await writeFileAtomic(page, experimentPage({ title: `${given.model}: search`, runs, names, tables: stages, notes }))
    return result
  }
}

/** What to say of a rate beyond which none was tried. */
function atTheEdge(rate: number, tried: readonly number[]): string[] {
  if (tried.length < 2) return []
  const [lowest, highest] = [Math.min(...tried), Math.max(...tried)]
  if (rate !== lowest && rate !== highest) return []
  const [edge, side] = rate === highest ? ['highest', 'higher'] : ['lowest', 'lower']
  return [`The best learning rate, ${rate}, is the ${edge} that was tried: ${side} ones may be better (--rates).`]
}

interface Tried {
  readonly trial: Trial
  readonly loss: number
}

class Search {
  readonly notes: string[] = []
  /** Names of the runs that went to their end. */
  readonly finished: string[] = []
  readonly #experiment: Experiment
  readonly #given: SearchConfig
  /** That of the trials, whose base may change. */
  #config: TrainConfig
  /** Steps between two evaluations, and two checkpoints, of every trial. */
  #every = 1

  constructor(config: SearchConfig, experiment: Experiment) {
    this.#given = config
    this.#config = config
    this.#experiment = experiment
  }

  /** Learning rate, modules and alpha at the first rank: all for a few steps, the better part of them for more, one to the end. */
  async *halve(context: TaskContext): AsyncGenerator<StatusEvent, { best: Tried; stage: SearchStage }> {
    const { startRank: r, rates, alphas, targets, targetModules } = this.#given
    const rate = rateFor(this.#config, methodOf(this.#config))
    const tried = rates ?? [1 / 3, 1, 3].map((factor) => Number((factor * rate).toPrecision(3)))
    const choices = targets.flatMap((target) =>
      alphas.flatMap((alpha) =>
        tried.map((learningRate): Choice => ({
          r,
          loraAlpha: alpha * r,
          learningRate,
          targetModules: target === 'config' ? targetModules : target,
        })),
      ),
    )
    // The modules of the configuration may be all-linear already.
    let trials = [...new Map(choices.map((choice) => this.#trial(choice)).map((one) => [one.name, one])).values()]
    yield status('planning memory')
    const [first] = await this.#experiment.configsOf([this.#wanted(trials[0]!)])
    const steps = yield* stepsOf(first!, context)
    const rungs = rungsOf(steps, trials.length)
    yield status(`${plural(trials.length, 'trial')} at r = ${r}, judged at steps ${rungs.join(', ')} of ${steps}`)
    this.#every = rungs[0]!
    const rows = new Map(trials.map(({ name }) => [name, [] as string[]]))
    let best: Tried | undefined
    for (const [i, rung] of rungs.entries()) {
      const losses = yield* this.#train(trials, rung === steps ? undefined : rung)
      const ranked = trials
        .flatMap((trial): Tried[] => (losses.has(trial.name) ? [{ trial, loss: losses.get(trial.name)! }] : []))
        .toSorted((a, b) => a.loss - b.loss)
      for (const { trial, loss } of ranked) rows.get(trial.name)![i] = number(loss)
      if (ranked.length === 0)
        throw new LowrankError('diverged', 'search: every trial has failed', {
          hint: 'Give lower learning rates (--rates).',
        })
      best = ranked[0]!
      const left = survivors(ranked.length, { isNextLast: i === rungs.length - 2 })
      trials = ranked.slice(0, left).map(({ trial }) => trial)
    }
    this.notes.push(...atTheEdge(best!.trial.choice.learningRate, tried))
    const titles = ['trial', ...rungs.map((rung) => `step ${rung}`)]
    const table = [...rows].map(([name, losses]) => [name, ...rungs.map((_, i) => losses[i] ?? '')])
    return {
      best: best!,
      stage: { title: `Learning rate, modules and alpha at r = ${r}: evaluation loss`, titles, rows: table },
    }
  }

  /** Doubles the rank as long as that is worth it. */
  async *climb(start: Tried): AsyncGenerator<StatusEvent, { best: Tried; stage: SearchStage; reason: string }> {
    const { maxRank, minGain } = this.#given
    let best = yield* this.#withoutSpikes(start)
    const rows = [[String(best.trial.choice.r), number(best.loss), '', '', 'start']]
    for (;;) {
      const { r, loraAlpha } = best.trial.choice
      const next = 2 * r
      if (next > maxRank) {
        const reason = `Stopped at r = ${r}: the next is above ${maxRank} (maxRank), and the loss was falling.`
        return {
          best,
          reason: rows.length === 1 ? `Stayed at r = ${r}, the highest allowed (maxRank).` : reason,
          stage: ladderStage(rows),
        }
      }
      const trial = this.#trial({ ...best.trial.choice, r: next, loraAlpha: (loraAlpha / r) * next })
      const trained = (yield* this.#train([trial])).get(trial.name)
      const tried = trained === undefined ? undefined : yield* this.#withoutSpikes({ trial, loss: trained })
      const loss = tried?.loss
      const difference = tried === undefined ? undefined : yield* this.#difference(best, tried)
      const gain = loss === undefined ? Number.NaN : 1 - loss / best.loss
      const worth = gain > minGain && difference !== undefined && difference.loss > difference.noise
      const noise = difference === undefined ? 'unknown' : `± ${number(difference.noise)}`
      rows.push([
        String(next),
        loss === undefined ? 'failed' : number(loss),
        percent(gain, 2),
        noise,
        worth ? 'goes on' : 'stays',
      ])
      yield status(`r = ${next}: gain ${percent(gain, 2)} over r = ${r}, ${worth ? 'goes on' : 'plateau'}`)
      if (!worth) {
        const why = gain > minGain ? 'no more than chance' : `not above ${percent(minGain, 2)} (minGain)`
        const reason = `Plateau at r = ${r}: r = ${next} gains ${percent(gain, 2)}, which is ${why}.`
        return { best, reason, stage: ladderStage(rows) }
      }
      best = tried!
    }
  }

  /** Where the loss of a run on a base in fp4 jumps again and again, the same run on nf4, which is taken from there on where it is better. */
  async *#withoutSpikes(start: Tried): AsyncGenerator<StatusEvent, Tried> {
    const { trial, loss } = start
    const spikes = yield* this.#spikesOf(trial)
    if (methodOf(this.#config) !== 'qlora-fp4' || spikes < tooManySpikes) return start
    yield status(`the loss has jumped ${spikes} times on a base in fp4: the same on nf4`)
    const fp4 = this.#config
    this.#config = withMethod(fp4, 'qlora')
    const other = this.#trial(trial.choice)
    const found = (yield* this.#train([other])).get(other.name)
    const better = found !== undefined && found < loss
    this.notes.push(
      `At r = ${trial.choice.r} the loss has jumped ${spikes} times on a base in fp4; on nf4 it ends at ${found === undefined ? 'nothing' : number(found)}, on fp4 at ` +
        `${number(loss)}: ${better ? 'nf4' : 'fp4'} is taken. Both curves are on the page.`,
    )
    if (better) return { trial: other, loss: found }
    this.#config = fp4
    return start
  }

  async *#spikesOf(trial: Trial): AsyncGenerator<StatusEvent, number> {
    const [job] = yield* this.#experiment.train([this.#wanted(trial)])
    return (job as JobOf<'train'>).result?.lossSpikes ?? 0
  }

  /** Whether one trial is better than another by more than chance, measured on the validation examples. */
  async *#difference(one: Tried, other: Tried): AsyncGenerator<StatusEvent, Difference | undefined> {
    const pair = [one, other]
    const jobs = yield* this.#experiment.measure(pair.map(({ trial }) => this.#wanted(trial)))
    const [a, b] = jobs.map((job, i) => ({
      seed: this.#given.seed,
      evalLoss: pair[i]!.loss,
      exampleLosses: (job as JobOf<'measure'>).result?.exampleLosses,
    }))
    return differenceOf([a!], [b!])
  }

  /** Evaluation losses of the trials after so many steps, or at their end; without those that failed. */
  async *#train(trials: readonly Trial[], rung?: number): AsyncGenerator<StatusEvent, Map<string, number>> {
    const jobs = yield* this.#experiment.train(trials.map((trial) => this.#wanted(trial, rung)))
    if (rung === undefined) this.finished.push(...trials.filter((_, i) => isDone(jobs[i]!)).map(({ name }) => name))
    return new Map(
      jobs.flatMap((job, i) => {
        const loss = job.kind === 'train' ? job.result?.evalLoss : undefined
        return loss === undefined ? [] : [[trials[i]!.name, loss] as const]
      }),
    )
  }
  #trial(choice: Choice): Trial {
    const { r, loraAlpha, learningRate, targetModules } = choice
    const method = methodOf(this.#config)
    const modules = targetModules === 'all-linear' ? targetModules : 'config'
    const config = trialConfig(this.#config, method, { ...choice, r, evalStrategy: 'steps', saveStrategy: 'steps' })
    return {
      name: `${method}-r${r}-alpha${Number(loraAlpha.toPrecision(4))}-lr${rateText(learningRate)}-${modules}`,
      choice,
      config,
    }
  }

  /** A trial up to a step, from which it goes on exactly, since its schedule is that of all its steps; or to its end. */
  #wanted({ name, config }: Trial, until?: number): Wanted {
    const every = { evalSteps: this.#every, saveSteps: this.#every }
    const id = until === undefined ? name : `${name}.to${until}`
    return { id, run: name, until, config: { ...config, ...every } }
  }
}

function ladderStage(rows: readonly (readonly string[])[]): SearchStage {
  return { title: 'Rank', titles: ['r', 'eval loss', 'gain', 'noise', 'then'], rows }
}

function isDone({ state }: Job): boolean {
  return state.status === 'done'
}
