import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { trainSchema } from '../../config/index.ts'
import { recordedRun } from '../../terminal/recorded.fixture.ts'
import type { TrainEvent } from '../../train/events.ts'
import { LowrankError } from '../../util/errors.ts'
import { resultOf } from '../../util/task.ts'
import { makeRun } from '../run.fixture.ts'
import { ReportFile } from './report-file.ts'
import { errorEvent, type Sink, withSinks } from './sink.ts'
import { EventFile } from './tensorboard.ts'
import { Webhook } from './webhook.ts'

/*
 * What every sink promises.
 */

let folder: string
const closing: (() => void)[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lowrank-sinks-'))
})
afterEach(() => {
  for (const close of closing.splice(0)) close()
  rmSync(folder, { recursive: true })
})

interface Target {
  readonly sink: Sink
  /** What reached the target, as one text. */
  readonly found: () => string
}

/** A folder, or one that cannot be written to: its name belongs to a file. */
function place(name: string, works: boolean): string {
  const path = join(folder, name)
  if (works) mkdirSync(path)
  else writeFileSync(path, '')
  return path
}

async function receiver(): Promise<{ readonly url: string; readonly texts: readonly string[] }> {
  const texts: string[] = []
  const server = createServer((request, response) => {
    request.setEncoding('utf8').on('data', (part: string) => texts.push(part))
    request.on('end', () => response.end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, texts }
}

/** Makes each sink, with a target that works or one that does not. */
const made: Readonly<Record<string, (works: boolean) => Promise<Target>>> = {
  tensorboard: async (works) => {
    const path = place('board', works)
    const text = (): string =>
      readdirSync(path)
        .map((name) => readFileSync(join(path, name), 'latin1'))
        .join('')
    return { sink: new EventFile({ folder: path, config: {} }), found: text }
  },
  webhook: async (works) => {
    const { url, texts } = works ? await receiver() : { url: 'http://127.0.0.1:1/', texts: [] }
    const sink = new Webhook({ outputDir: 'o', model: 'm', method: 'lora', webhookUrl: url }, patience)
    return { sink, found: () => texts.join('') }
  },
  'report.html': async (works) => {
    const path = place('run', works)
    if (works) makeRun(path, { steps: 3 })
    const page = join(path, 'report.html')
    return { sink: new ReportFile(path), found: () => (existsSync(page) ? readFileSync(page, 'utf8') : '') }
  },
}
const patience = { timeout: 5000, body: 100, pauses: [1], flush: 10_000 }

async function* events(list: readonly TrainEvent[], error?: Error): AsyncGenerator<TrainEvent, void> {
  yield* list
  if (error !== undefined) throw error
}

/** What comes out of a run with these sinks, and how it ended. */
async function follow(
  sinks: readonly Sink[],
  run: AsyncGenerator<TrainEvent, void>,
): Promise<{ out: TrainEvent[]; error: unknown }> {
  const out: TrainEvent[] = []
  try {
    for await (const event of withSinks(sinks, run)) out.push(event)
    return { out, error: undefined }
  } catch (error) {
    return { out, error }
  }
}

const warningsOf = (out: readonly TrainEvent[]): string[] =>
  out.filter((event) => !recordedRun.includes(event)).map((event) => (event.type === 'warning' ? event.message : '?'))

test('every tracker that can be asked for is among the sinks', () => {
  const asked = trainSchema.shape.reportTo.safeParse(['tensorboard', 'webhook', 'none'])
  expect(asked.data?.filter((name) => made[name] === undefined)).toEqual([])
  const problem = trainSchema.shape.reportTo.safeParse(['another']).error?.issues[0]
  expect(problem).toMatchObject({ values: ['none', 'tensorboard', 'webhook'] })
})

test('the events tried are of every type', () => {
  const types: Record<TrainEvent['type'], true> = {
    status: true,
    warning: true,
    data: true,
    plan: true,
    step: true,
    log: true,
    eval: true,
    spike: true,
    overfitting: true,
    save: true,
    resume: true,
    sample: true,
    done: true,
  }
  expect(new Set(recordedRun.map(({ type }) => type))).toEqual(new Set(Object.keys(types)))
})

describe.each(Object.entries(made))('%s', (_name, make) => {
  test('receives a run with every type of event, and reports no problem', async () => {
    const { sink, found } = await make(true)
    const { out, error } = await follow([sink], events(recordedRun))
    expect({ out, error }).toEqual({ out: recordedRun, error: undefined })
    expect(found().length).toBeGreaterThan(100)
    expect(sink.warnings()).toEqual([])
  })

  test('receives a run that fails, whose error comes through', async () => {
    const { sink, found } = await make(true)
    const begun = recordedRun.filter(({ type }) => type !== 'done')
    const failure = new LowrankError('memory', 'no memory left')
    const { out, error } = await follow([sink], events(begun, failure))
    expect({ out, error }).toEqual({ out: begun, error: failure })
    expect(found().length).toBeGreaterThan(100)
  })

  test('whose target fails: one warning before the end, or two where a number of lost events is one of them; no error', async () => {
    const { sink } = await make(false)
    const { out, error } = await follow([sink], events(recordedRun))
    expect(error).toBeUndefined()
    expect(out.filter((event) => recordedRun.includes(event))).toEqual(recordedRun)
    expect(out.at(-1)?.type).toBe('done')
    const [problem, lost, ...others] = warningsOf(out)
    expect(problem).toMatch(/TensorBoard|webhook|report/)
    expect(lost ?? 'missed').toContain('missed')
    expect(others).toEqual([])
  })

  test('whose target fails hides no error of the run', async () => {
    const { sink } = await make(false)
    const failure = new LowrankError('memory', 'no memory left')
    const { error } = await follow([sink], events(recordedRun.slice(0, -1), failure))
    expect(error).toBe(failure)
  })

  test('may be closed twice, and passes on no more of the run then', async () => {
    const { sink, found } = await make(true)
    sink.close()
    sink.close()
    const before = found()
    for (const event of recordedRun.slice(0, -1)) sink.event(event)
    await sink.flush()
    sink.close()
    expect(found()).toBe(before)
  })

  test('is closed with a run whose events nobody takes to the end', async () => {
    const { sink } = await make(true)
    let closed = 0
    const counted: Sink = { ...bound(sink), close: () => void (sink.close(), closed++) }
    for await (const event of withSinks([counted], events(recordedRun))) if (event.type === 'plan') break
    expect(closed).toBe(1)
  })
})

test('each sink receives what another one does not take, and the error that ended a run', async () => {
  const taken: string[] = []
  const listener: Sink = {
    event: ({ type }) => taken.push(type),
    flush: async () => {},
    warnings: () => [],
    close: () => {},
  }
  const { sink } = await made['tensorboard']!(false)
  await follow([sink, listener], events(recordedRun.slice(0, 2), new Error('broken')))
  expect(taken).toEqual([...recordedRun.slice(0, 2).map(({ type }) => type), 'error'])
  expect(errorEvent(new Error('broken'))).toEqual({ type: 'error', code: 'internal', message: 'broken' })
  await expect(resultOf(withSinks([], events([], new Error('broken'))))).rejects.toThrow('broken')
})

/** Methods of a class as functions. */
function bound(sink: Sink): Sink {
  return {
    event: (event) => sink.event(event),
    flush: () => sink.flush(),
    warnings: () => sink.warnings(),
    close: () => sink.close(),
  }
}
