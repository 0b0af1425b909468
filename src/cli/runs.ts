import { compareSchema, readOptions, reportSchema, runsSchema } from '../config/index.ts'
import { compareRuns, figureRows } from '../report/compare.ts'
import { listRuns, type RunSummary } from '../runs/list.ts'
import { writeReport } from '../report/report.ts'
import { bytes, count, duration, number, table } from './format.ts'
import type { Invocation } from './io.ts'

/** `lowrank report RUN`: the report of a run, made again. */
export async function report({ sources, positionals: [run = '.'], json, io }: Invocation): Promise<void> {
  const path = await writeReport(run, readOptions(reportSchema, sources))
  io.stdout.write(json ? `${JSON.stringify({ output: path })}\n` : `report in ${path}\n`)
}

/** `lowrank runs [FOLDER]`: a line a run. */
export async function runs({ sources, positionals: [folder = '.'], json, io }: Invocation): Promise<void> {
  const { runs: found, unreadable } = await listRuns(folder, readOptions(runsSchema, sources))
  for (const { folder: path, reason } of unreadable) io.stderr.write(`warning: ${path} is passed over: ${reason}\n`)
  if (json) io.stdout.write(`${JSON.stringify(found)}\n`)
  else if (found.length === 0) io.stderr.write(`no runs in ${folder}\n`)
  else io.stdout.write(`${runLines(found, new Date()).join('\n')}\n`)
}

/** `lowrank runs compare A B`: what differs, what came of it, and a page of curves. */
export async function compare({ sources, positionals, json, io }: Invocation): Promise<void> {
  const { output } = readOptions(compareSchema, sources)
  const comparison = await compareRuns(positionals, { output })
  if (json) {
    io.stdout.write(`${JSON.stringify({ ...comparison, output })}\n`)
    return
  }
  const { names, differences } = comparison
  const rows = differences.map(({ what, values }) => [what, ...values])
  const lines = [
    ...table(['', ...names], figureRows(comparison.runs)),
    '',
    ...(rows.length === 0 ? ['no option and no input differs'] : table(['differs', ...names], rows)),
    '',
    `curves in ${output}`,
  ]
  io.stdout.write(`${lines.join('\n')}\n`)
}

/** The table of runs. A run that says it goes on, but has been silent for long, may have been killed: its age is shown. */
export function runLines(found: readonly RunSummary[], now: Date): string[] {
  const rows = found.map(({ folder, status, method, model, figures, startedAt, lastSign }) => {
    const silent = (now.getTime() - new Date(lastSign).getTime()) / 1000
    const of = figures.plannedSteps === undefined ? '' : `/${count(figures.plannedSteps)}`
    return [
      folder,
      status === 'running' && silent > SILENCE ? `running? silent ${duration(silent)}` : status,
      method ?? '',
      model ?? '',
      `${count(figures.steps)}${figures.steps === figures.plannedSteps ? '' : of}`,
      figures.trainLoss === undefined ? '' : number(figures.trainLoss),
      figures.best === undefined ? '' : number(figures.best.loss),
      figures.seconds === undefined ? '' : duration(figures.seconds),
      figures.peakMemory === undefined ? '' : bytes(figures.peakMemory),
      startedAt.slice(0, 16).replace('T', ' '),
    ]
  })
  const titles = [
    'run',
    'status',
    'method',
    'model',
    'steps',
    'train loss',
    'best eval',
    'time',
    'memory',
    'started (UTC)',
  ]
  return table(titles, rows)
}

/** Seconds without a word from a run after which one may ask whether it lives. */
const SILENCE = 600
