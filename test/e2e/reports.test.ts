import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { finetune, type RunSummary, type TrainEvent } from 'lowrank'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import {
  all,
  collect,
  flags,
  last,
  listFiles,
  lowrank,
  lowrankHere,
  makeTinyModel,
  only,
  temporaryFolder,
  writeData,
} from './support.ts'

// What is reported of real runs: report.html, lists, comparisons, TensorBoard's files, the webhook.
const folder = temporaryFolder()
const data = writeData(folder)
const runs = join(folder, 'runs')
const out = (name: string): string => join(runs, name)
let options: { model: string; train: string; maxLength: number; saveStrategy: 'no'; loggingSteps: number }
beforeAll(async () => {
  const model = await makeTinyModel(folder)
  options = { model, train: data.train, maxLength: 96, saveStrategy: 'no', loggingSteps: 2 }
})

interface Received {
  readonly run: Record<string, string>
  readonly event: TrainEvent | { readonly type: 'error'; readonly code: string }
}

/** A receiver on this machine, and what it received. */
async function receiver(answer: (response: ServerResponse) => void): Promise<{ url: string; received: Received[] }> {
  const received: Received[] = []
  const server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part: string) => (text += part))
    request.on('end', () => {
      received.push(JSON.parse(text) as Received)
      answer(response)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  afterAll(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/secret-path`, received }
}

const ok = (response: ServerResponse): unknown => response.end()

/** The tags of all scalars in TensorBoard's files of a folder; crude, but a tag is text in them. */
function boardTags(path: string): string[] {
  const text = readdirSync(path)
    .map((name) => readFileSync(join(path, name), 'latin1'))
    .join('')
  return [...new Set(text.match(/\b(train|eval)\/[a-z_]+/g))].sort()
}

describe('a run with all trackers', () => {
  let events: TrainEvent[]
  let received: Received[]
  beforeAll(async () => {
    const hook = await receiver(ok)
    received = hook.received
    const reportTo: ('tensorboard' | 'webhook')[] = ['tensorboard', 'webhook']
    const trackers = { reportTo, webhookUrl: hook.url }
    const tracked = { ...options, ...trackers, valid: data.valid, outputDir: out('tracked') }
    events = await all(finetune({ ...tracked, maxSteps: 4, evalSteps: 2, samples: 1, r: 4 }))
  })

  test('the report is there, with what the run has shown', () => {
    const page = readFileSync(join(out('tracked'), 'report.html'), 'utf8')
    const { trainLoss } = last(only(events, 'done'))
    for (const text of [trainLoss.toFixed(4), 'tracked', 'class="before"', 'class="after"', '>done<']) {
      expect(page.includes(text), text).toBe(true)
    }
    const charts = JSON.parse(/id="charts">(.*?)<\/script>/s.exec(page)?.[1] ?? '') as {
      id: string
      series: { label: string; x: number[]; y: number[] }[]
    }[]
    const loss = charts.find(({ id }) => id === 'loss')?.series ?? []
    const rounded = (values: readonly number[]): number[] => values.map((value) => Number(value.toPrecision(6)))
    expect(loss.map(({ label, x, y }) => [label, x, y])).toEqual([
      ['training', [1, 2, 3, 4], rounded(only(events, 'step').map((step) => step.loss))],
      ['evaluation', [2, 4], rounded(only(events, 'eval').map((evaluation) => evaluation.loss))],
    ])
  })

  test('TensorBoard: one file, tagged as transformers does', () => {
    const [time] = readdirSync(join(out('tracked'), 'runs'))
    expect(time).toMatch(/^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$/)
    const tags = boardTags(join(out('tracked'), 'runs', time!))
    expect(tags).toEqual(
      expect.arrayContaining(['eval/loss', 'train/grad_norm', 'train/learning_rate', 'train/loss', 'train/train_loss']),
    )
  })

  test('the webhook: every event in order, done last', () => {
    const untold = new Set(['status', 'data', 'step', 'sample'])
    const expected = events.filter(({ type }) => !untold.has(type))
    expect(received.map(({ event }) => event)).toEqual(JSON.parse(JSON.stringify(expected)))
    expect(last(received).event.type).toBe('done')
    expect(received[0]?.run).toMatchObject({ name: 'tracked', method: 'lora' })
  })

  test('the address of the webhook, which lets anyone post, is in none of the files', () => {
    for (const file of listFiles(out('tracked'))) {
      expect(readFileSync(join(out('tracked'), file), 'latin1'), file).not.toContain('secret-path')
    }
  })
})

test('a run that fails after some steps leaves a report, and tells its webhook why', async () => {
  const { url, received } = await receiver(ok)
  const controller = new AbortController()
  const config = { ...options, outputDir: out('stopped'), maxSteps: 5000, reportTo: ['webhook' as const] }
  const run = finetune({ ...config, webhookUrl: url }, { signal: controller.signal })
  await expect(async () => {
    for await (const event of run) if (event.type === 'step' && event.step === 2) controller.abort()
  }).rejects.toMatchObject({ code: 'cancelled' })
  expect(readFileSync(join(out('stopped'), 'report.html'), 'utf8')).toContain('>cancelled<')
  expect(last(received).event).toMatchObject({ type: 'error', code: 'cancelled' })
})

test('a webhook that hangs does not stop a run', async () => {
  const { url, received } = await receiver(() => undefined)
  const begun = performance.now()
  const config = { ...options, outputDir: out('hung'), maxSteps: 3, reportTo: ['webhook' as const], webhookUrl: url }
  const events = await all(finetune(config))
  expect(last(events).type).toBe('done')
  expect(only(events, 'step')).toHaveLength(3)
  expect(only(events, 'warning').map(({ message }) => message)).toContainEqual(
    expect.stringMatching(/^the webhook missed \d+ events of this run$/),
  )
  expect(received.length).toBeGreaterThan(0)
  expect(performance.now() - begun).toBeLessThan(30_000)
})

test('an event file that cannot be written is a warning', async () => {
  const taken = join(folder, 'taken')
  writeFileSync(taken, '')
  const config = { ...options, outputDir: out('unboarded'), maxSteps: 1, reportTo: ['tensorboard' as const] }
  const events = await collect({ ...config, loggingDir: join(taken, 'board') })
  expect(only(events, 'warning').map(({ message }) => message)).toEqual([
    expect.stringContaining('no more events of this run are written for TensorBoard'),
  ])
})

test('a report that cannot be written is a warning', async () => {
  const outputDir = out('unreported')
  const events: TrainEvent[] = []
  for await (const event of directTasks.finetune({ ...options, outputDir, maxSteps: 1 })) {
    events.push(event)
    // A folder that is not empty gets in the way, once the run has begun.
    if (event.type === 'step') mkdirSync(join(outputDir, 'report.html/in the way'), { recursive: true })
  }
  expect(only(events, 'warning').map(({ message }) => message)).toEqual([
    expect.stringContaining('the report was not written'),
  ])
  expect(existsSync(join(outputDir, 'adapter_model.safetensors'))).toBe(true)
})

test('a resumed run begins a second event file beside the first', async () => {
  const config = { ...options, outputDir: out('resumed'), saveStrategy: 'steps' as const, saveSteps: 2 }
  const board = { loggingDir: join(folder, 'board'), reportTo: ['tensorboard' as const] }
  await collect({ ...config, ...board, maxSteps: 4 })
  rmSync(join(out('resumed'), 'checkpoint-4'), { recursive: true, force: true })
  await collect({ ...config, ...board, maxSteps: 4, resume: true })
  expect(readdirSync(board.loggingDir)).toHaveLength(2)
})

describe('commands', () => {
  test('runs: a table, the newest first, and JSON', async () => {
    const { code, stdout } = await lowrankHere(['runs', runs])
    expect(code).toBe(0)
    const [titles = '', ...lines] = stdout.trimEnd().split('\n')
    expect(titles).toMatch(/^run +status +method +model +steps +train loss +best eval/)
    expect(lines.length).toBeGreaterThanOrEqual(5)
    expect(lines.join('\n')).toMatch(/tracked +done +lora .* 4 +\d+\.\d{4} +\d+\.\d{4} /)
    expect(lines.join('\n')).toMatch(/stopped +cancelled .* \d+\/5,000 /)
    const listed = JSON.parse((await lowrank(['runs', '--json'], runs)).stdout) as RunSummary[]
    expect(listed).toHaveLength(lines.length)
    const started = listed.map(({ startedAt }) => startedAt)
    expect(started).toEqual([...started].sort().reverse())
    expect(listed.find(({ name }) => name === 'tracked')).toMatchObject({ status: 'done', figures: { steps: 4 } })
  })

  test('runs of a folder without any; of none', async () => {
    expect(await lowrankHere(['runs', '--depth', '0', folder])).toMatchObject({ code: 0, stdout: '' })
    expect(await lowrankHere(['runs', join(folder, 'none')])).toMatchObject({ code: 2 })
  })

  test('report: the same file again, or elsewhere', async () => {
    const path = join(out('tracked'), 'report.html')
    const before = readFileSync(path, 'utf8')
    rmSync(path)
    expect(await lowrankHere(['report', out('tracked')])).toMatchObject({ code: 0, stdout: `report in ${path}\n` })
    expect(readFileSync(path, 'utf8')).toBe(before)
    const elsewhere = join(folder, 'elsewhere.html')
    await lowrankHere(['report', out('tracked'), '--output', elsewhere])
    expect(readFileSync(elsewhere, 'utf8')).toBe(before)
    const none = await lowrankHere(['report', folder])
    expect(none).toMatchObject({ code: 2, stdout: '' })
    expect(none.stderr).toContain('run.json')
    expect(await lowrankHere(['report'])).toMatchObject({ code: 2, stderr: expect.stringContaining('RUN is missing') })
  })

  test('runs compare: options that differ, figures, and a page', async () => {
    const page = join(folder, 'compared.html')
    const args = ['runs', 'compare', out('tracked'), out('stopped'), '--output', page]
    const { code, stdout } = await lowrankHere(args)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^Status +done +cancelled$/m)
    expect(stdout).toMatch(/^r +4 +8$/m)
    expect(stdout).toMatch(/^maxSteps +4 +5000$/m)
    expect(stdout).not.toMatch(/^model /m)
    expect(stdout).toContain(`curves in ${page}`)
    expect(readFileSync(page, 'utf8')).toContain('data-chart="loss"')
    const json = JSON.parse((await lowrankHere([...args, '--json'])).stdout) as { names: string[] }
    expect(json.names).toEqual(['tracked', 'stopped'])
    expect(await lowrankHere(['runs', 'compare', out('tracked')])).toMatchObject({ code: 2 })
  })

  test('options that do not fit together', async () => {
    const train = ['train', ...flags({ model: options.model, train: data.train, outputDir: out('never') })]
    const refused = async (...more: string[]): Promise<string> => {
      const { code, stderr } = await lowrankHere([...train, ...more])
      expect(code).toBe(2)
      return stderr
    }
    expect(await refused('--report-to', 'webhook')).toContain('webhook needs --webhook-url')
    expect(await refused('--report-to', 'wandb')).toContain('a list of tensorboard and webhook, or none')
    expect(await refused('--webhook-url', 'ftp://x')).toContain('http:// or https://')
    expect(existsSync(out('never'))).toBe(false)
  })
})
