import { z } from 'zod'
import { option } from '../config/fields.ts'
import { optionSet } from '../config/index.ts'
import type { RunList, RunSummary } from '../runs/list.ts'
import { table } from '../terminal/format.ts'
import { count, duration, formatSize, number } from '../util/format.ts'
import { word } from './argument.ts'
import { defineCommand } from './define.ts'

export type { RunList, RunSummary }
export type { Figures } from '../runs/read.ts'

const options = optionSet(
  z.strictObject({
    depth: option(z.int().min(0).max(64).default(3), {
      group: 'Reports',
      description: 'Levels of subfolders that are searched',
    }),
  }),
)

/**
 * The runs in a folder: it and its subfolders, to a depth, that have a `run.json`. Hidden folders, `node_modules` and links are
 * passed over.
 *
 * @throws LowrankError `data` where the folder cannot be read.
 */
export const listRuns: (folder: string, options?: { readonly depth?: number }) => Promise<RunList> = defineCommand({
  name: 'runs',
  summary: 'List the runs below a folder, the newest first',
  usage: '[FOLDER] [flags]',
  notes: 'FOLDER is the current one unless given. A run is a folder with a run.json.',
  argument: word('folder', 'FOLDER', { optional: true }),
  options,
  defaults: { folder: '.' },
  run: async ({ folder, depth }) => (await import('../runs/list.ts')).listRuns(folder, depth),
  aside: ({ runs, unreadable }, { config, json }) => [
    ...unreadable.map(({ folder, reason }) => `warning: ${folder} is passed over: ${reason}`),
    ...(runs.length === 0 && !json ? [`no runs in ${config.folder}`] : []),
  ],
  text: ({ runs }) => (runs.length === 0 ? [] : runLines(runs, new Date())),
  json: ({ runs }) => runs,
})

/** The table of runs. A run that says it goes on, but has been silent for long, may have been killed: its age is shown. */
function runLines(found: readonly RunSummary[], now: Date): string[] {
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
      figures.peakMemory === undefined ? '' : formatSize(figures.peakMemory),
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
