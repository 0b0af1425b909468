import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { parseTrainConfig } from '../config/index.ts'
import { compareRuns } from '../commands/runs-compare.ts'
import { writeReport } from '../commands/report.ts'
import { listRuns } from '../commands/runs.ts'
import { readRun } from '../runs/read.ts'
import { makeRun } from './run.fixture.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-report-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let made = 0
const fresh = (): string => join(folder, `run-${made++}`)

async function reportOf(run: string): Promise<string> {
  return readFileSync(await writeReport(run), 'utf8')
}

describe('readRun', () => {
  test('what a run has reported', async () => {
    const run = await readRun(makeRun(fresh(), { steps: 100, evalEvery: 25 }))
    expect(run).toMatchObject({ status: 'done', startedAt: '2026-01-02T03:04:05.000Z', ended: undefined })
    expect(run.steps.step).toEqual(Array.from({ length: 100 }, (_, index) => index + 1))
    expect(run.evals.map(({ step }) => step)).toEqual([25, 50, 75, 100])
    expect(run.samples).toHaveLength(2)
    expect(run.samples[0]).toMatchObject({ before: 'no idea', after: ' billing', expected: ' billing' })
    const mean = run.steps.loss.reduce((sum, loss) => sum + loss, 0) / 100
    expect(run.figures).toMatchObject({ steps: 100, plannedSteps: 100, seconds: 321, peakMemory: 1.5e9 })
    expect(run.figures.trainLoss).toBeCloseTo(mean, 12)
    expect(run.figures.best).toEqual({ step: 100, loss: run.evals[3]!.loss })
    expect(run.figures.tokensPerSecond).toBeCloseTo(1000 / 1.25, 6)
  })

  test('a run that was killed: half a line, no end', async () => {
    const path = makeRun(fresh(), { steps: 10, status: 'running' })
    writeFileSync(join(path, 'metrics.jsonl'), `${readFileSync(join(path, 'metrics.jsonl'), 'utf8')}{"type":"st`)
    const run = await readRun(path)
    expect(run.status).toBe('running')
    expect(run.figures).toMatchObject({ steps: 10, plannedSteps: 10 })
    expect(run.figures.seconds).toBeCloseTo(12.5, 6)
  })

  test('a loss that is no number is a gap, not a mean', async () => {
    const path = makeRun(fresh(), { steps: 3, losses: [1, null, 2], status: 'failed' })
    const run = await readRun(path)
    expect(run.steps.loss).toEqual([1, NaN, 2])
    expect(run.figures.trainLoss).toBe(1.5)
    expect(run.ended).toBe('it failed')
    expect(run.notices.map(({ kind, step }) => [kind, step])).toEqual([
      ['warning', undefined],
      ['spike', 2],
      ['overfitting', 3],
    ])
  })

  test('steps that a resumed run computes again count once', async () => {
    const path = makeRun(fresh(), { steps: 6, status: 'running' })
    const again = makeRun(fresh(), { steps: 8, losses: [9, 9, 9, 9, 9, 9, 9, 9] })
    const lines = readFileSync(join(again, 'metrics.jsonl'), 'utf8').split('\n')
    const from4 = lines.filter((line) => line.includes('"type":"step"')).slice(3)
    writeFileSync(join(path, 'metrics.jsonl'), `${from4.join('\n')}\n`, { flag: 'a' })
    const { steps } = await readRun(path)
    expect(steps.step).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(steps.loss.slice(3)).toEqual([9, 9, 9, 9, 9])
    expect(steps.memory).toHaveLength(8)
  })

  test('a folder without a run', async () => {
    await expect(readRun(folder)).rejects.toMatchObject({ code: 'data', hint: expect.stringContaining('run.json') })
  })

  test('files of anything else are read without a fall', async () => {
    const path = fresh()
    mkdirSync(path)
    writeFileSync(join(path, 'run.json'), '{"status": 7, "config": [], "hashes": null, "result": "x"}')
    writeFileSync(
      join(path, 'metrics.jsonl'),
      '[]\n{"type":"step"}\n{"type":"step","step":"x"}\n{"type":"plan"}\n{"type":"data","train":3}\n{"type":"new"}\n7\nx\n' +
        '{"type":"plan","memory":{}}\n{"type":"spike"}\n{"type":"overfitting"}\n{"type":"sample"}\n{"type":"eval"}\n' +
        '{"type":"data","train":{"path":{}}}\n{"type":"step","step":1}\n',
    )
    expect((await readRun(path)).figures.steps).toBe(1)
    expect(await reportOf(path)).toContain('<h1>')
  })
})

describe('files of another program', () => {
  /** A run with one value in every place of run.json, and in every event of metrics.jsonl. */
  function runOf(value: unknown): string {
    const path = makeRun(fresh(), { steps: 3 })
    const replaced = (one: unknown): unknown =>
      typeof one === 'object' && one !== null
        ? Object.fromEntries([...Object.entries(one).map(([key, inner]) => [key, replaced(inner)]), ['more', value]])
        : value
    const record = JSON.parse(readFileSync(join(path, 'run.json'), 'utf8')) as Record<string, unknown>
    writeFileSync(join(path, 'run.json'), JSON.stringify({ ...(replaced(record) as object), status: 'done' }))
    const events = readFileSync(join(path, 'metrics.jsonl'), 'utf8').trim().split('\n')
    const lines = events.flatMap((line) => {
      const event = JSON.parse(line) as Record<string, unknown>
      const { type, step = null, memory } = event
      const whole = { ...(replaced(event) as object), type, step }
      // One place wrong at a time, too.
      const single = Object.keys(event).map((key) => ({ ...event, type, [key]: key === 'type' ? type : value }))
      const items = type === 'plan' ? [{ ...event, memory: { ...(memory as object), items: [value] } }] : []
      return [whole, ...single, ...items].map((one) => JSON.stringify(one))
    })
    writeFileSync(join(path, 'metrics.jsonl'), `${lines.join('\n')}\n`)
    return path
  }

  const markup = '<meta http-equiv="refresh" content="0;url=http://127.0.0.1/">'
  const values: readonly unknown[] = [
    { html: markup },
    { '#text': markup, html: markup, toString: markup },
    [{ html: markup }],
    JSON.parse(`{"__proto__":{"html":${JSON.stringify(markup)}}}`),
    null,
    true,
    [null],
    'garbage',
    markup,
    -1,
    0.5,
    1e300,
    { toISOString: 1 },
  ]
  test.each(values.map((value) => ({ value })))(
    'are a page and a comparison, whatever they hold: %j',
    async ({ value }) => {
      const path = runOf(value)
      const page = await reportOf(path)
      expect(page).not.toContain('<meta http-equiv="refresh"')
      expect(page).toContain('<h1>')
      const output = join(path, 'compared.html')
      await compareRuns([path, makeRun(fresh(), { steps: 3 })], { output })
      expect(readFileSync(output, 'utf8')).not.toContain('<meta http-equiv="refresh"')
      expect((await listRuns(path)).unreadable).toEqual([])
    },
  )

  const places = [
    'modelType',
    'quantization',
    'expandWeights',
    'activations',
    'bound',
    'what',
    'bytes',
    'path',
    'tokens',
  ]
  test.each(places)('an object in the place of %s is no markup', async (place) => {
    const path = makeRun(fresh(), { steps: 3 })
    const metrics = join(path, 'metrics.jsonl')
    const events = readFileSync(metrics, 'utf8')
    const forged = events
      .replaceAll(new RegExp(`"${place}":("[^"]*"|[^,}]*)`, 'g'), `"${place}":${JSON.stringify({ html: markup })}`)
      .replace('"activations"', `"quantization":${JSON.stringify({ html: markup })},"activations"`)
    writeFileSync(metrics, forged)
    expect(await reportOf(path)).not.toContain('<meta http-equiv="refresh"')
  })

  test('a plan and a summary that are whole are shown, also beside a broken one', async () => {
    const path = makeRun(fresh(), { steps: 3 })
    writeFileSync(join(path, 'metrics.jsonl'), '{"type":"plan","memory":{"items":[null]}}\n{"type":"data"}\n', {
      flag: 'a',
    })
    const { plan, data } = await readRun(path)
    expect(plan?.memory.items).toEqual([{ what: 'base weights', bytes: 5e8 }])
    expect(data?.train.path).toBe('t.jsonl')
  })

  test('nesting without end is named', async () => {
    const path = makeRun(fresh(), { steps: 3 })
    const deep = `${'['.repeat(1e5)}${']'.repeat(1e5)}`
    writeFileSync(join(path, 'metrics.jsonl'), `{"type":"warning","message":${deep}}\n`, { flag: 'a' })
    expect(await reportOf(path)).toContain('<h1>')
    writeFileSync(join(path, 'run.json'), `{"config":${deep}}`)
    await expect(writeReport(path)).rejects.toMatchObject({
      code: 'data',
      message: expect.stringMatching(/run\.json: not valid JSON \(nested more than 200 levels deep\)/),
    })
    expect((await listRuns(path)).unreadable).toHaveLength(1)
  })
})

describe('report.html', () => {
  test('nothing that a model or a file says becomes markup', async () => {
    const evil = `</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&\u2028\u0000<!--`
    const page = await reportOf(
      makeRun(fresh(), { steps: 3, completion: evil, message: evil, config: { adapter: evil } }),
    )
    expect(page).not.toContain('<script>alert')
    expect(page).not.toContain('<img')
    expect(page).not.toContain('\u0000')
    expect(page.match(/<script\b/g)).toHaveLength(3)
    expect(page.match(/<\/script>/g)).toHaveLength(3)
    expect(page.split('&lt;/script&gt;&lt;script&gt;alert(1)').length - 1).toBeGreaterThanOrEqual(3)
  })

  test('the policy names the hash of each script and style, and allows nothing else', async () => {
    const page = await reportOf(makeRun(fresh(), { steps: 3 }))
    const policy = /Content-Security-Policy"\s+content="([^"]*)"/.exec(page)?.[1]?.replaceAll('&#39;', "'") ?? ''
    const texts = [...page.matchAll(/<(script|style)>(.*?)<\/\1>/gs)].map((match) => match[2]!)
    expect(texts).toHaveLength(4)
    for (const text of texts) expect(policy).toContain(createHash('sha256').update(text).digest('base64'))
    expect(policy).toContain("default-src 'none'")
    expect(policy).not.toContain('unsafe')
  })

  test('no address is loaded, and the licence of uPlot is there', async () => {
    const page = await reportOf(makeRun(fresh(), { steps: 3 }))
    expect(page).not.toMatch(/\b(src|href)\s*=|@import|url\(/)
    expect(page).toContain('Permission is hereby granted, free of charge')
    expect(page).toContain('Leon Sorokin')
  })

  test('what differs from the defaults comes first; the rest is folded', async () => {
    const page = await reportOf(makeRun(fresh(), { steps: 3, config: { r: 64, learningRate: 5e-5 } }))
    const [chosen = '', others = ''] = page.split('As by default')
    const row = (name: string): RegExp => new RegExp(`<th scope="row">${name}</th>`)
    expect(chosen).toMatch(row('r'))
    expect(chosen).toMatch(row('model'))
    expect(chosen).not.toMatch(row('learningRate'))
    expect(others).toMatch(row('learningRate'))
  })

  test('100,000 steps and 1,000 long samples: below 2 MB', { timeout: 30_000 }, async () => {
    const path = makeRun(fresh(), { steps: 100_000, evalEvery: 50, samples: 1000, completion: 'word '.repeat(2000) })
    const page = await reportOf(path)
    expect(page.length).toBeLessThan(2e6)
    expect(page).toContain('50 of 1,000')
  })

  test('a run without a step has no empty plots', async () => {
    const page = await reportOf(makeRun(fresh(), { steps: 0, status: 'failed' }))
    expect(page).toContain('No step was done')
    expect(page).not.toContain('<figure')
  })

  test('the address of a webhook is not in it', async () => {
    const config = parseTrainConfig({ model: 'm', train: 't', outputDir: 'o', webhookUrl: 'https://example.org/hook' })
    // As `run.json` has it: see train/run-inputs.ts.
    const page = await reportOf(
      makeRun(fresh(), { steps: 1, config: { ...config, webhookUrl: 'https://example.org' } }),
    )
    expect(page).not.toContain('/hook')
  })
})

describe('lists and comparisons', () => {
  test('runs below a folder, the newest first, and what cannot be read', async () => {
    const root = fresh()
    makeRun(join(root, 'a'), { steps: 4, startedAt: '2026-01-01T00:00:00.000Z' })
    makeRun(join(root, 'deep/er/b'), { steps: 2, startedAt: '2026-01-03T00:00:00.000Z', status: 'running' })
    makeRun(join(root, '.hidden/c'), { steps: 1 })
    makeRun(join(root, 'node_modules/d'), { steps: 1 })
    mkdirSync(join(root, 'broken'))
    writeFileSync(join(root, 'broken/run.json'), '{')
    const { runs, unreadable } = await listRuns(root)
    expect(runs.map(({ name, status }) => [name, status])).toEqual([
      ['b', 'running'],
      ['a', 'done'],
    ])
    expect(runs[1]).toMatchObject({ method: 'lora', model: 'models/m', figures: { steps: 4, best: { step: 4 } } })
    expect(unreadable).toEqual([{ folder: join(root, 'broken'), reason: expect.stringContaining('JSON') as string }])
    expect((await listRuns(root, { depth: 1 })).runs.map(({ name }) => name)).toEqual(['a'])
    await expect(listRuns(join(root, 'none'))).rejects.toMatchObject({ code: 'data' })
  })

  test('what differs between runs, and a page with all curves', async () => {
    const a = makeRun(join(fresh(), 'same'), { steps: 50, config: { r: 8, outputDir: 'x' } })
    const b = makeRun(join(fresh(), 'same'), { steps: 70, config: { r: 32, outputDir: 'y' }, trainHash: 'f00' })
    const output = join(folder, 'compare.html')
    const { names, differences } = await compareRuns([a, b], { output })
    expect(new Set(names).size).toBe(2)
    expect(differences).toEqual([
      { what: 'r', values: ['8', '32'] },
      { what: 'contents of train', values: expect.anything() as string[] },
    ])
    const page = readFileSync(output, 'utf8')
    const charts = JSON.parse(/id="charts">(.*?)<\/script>/s.exec(page)?.[1] ?? '') as {
      id: string
      series: unknown[]
    }[]
    expect(charts.map(({ id, series }) => [id, series.length])).toEqual(
      ['loss', 'evalLoss', 'accuracy', 'gradNorm', 'learningRate', 'tokensPerSecond', 'memory'].map((id) => [id, 2]),
    )
    await expect(compareRuns([a])).rejects.toMatchObject({ code: 'usage' })
  })

  test('the name of a folder does not become markup, nor end the data of the plots', async () => {
    const [a, b] = ['<!--<script>', '<b>"&'].map((name) => makeRun(join(fresh(), name), { steps: 3 }))
    const output = join(folder, 'names.html')
    await compareRuns([a!, b!], { output })
    const page = readFileSync(output, 'utf8')
    expect(page.match(/<script\b/g)).toHaveLength(3)
    expect(page).not.toMatch(/<!--|<b>"/)
    expect(page).toContain('&lt;!--&lt;script&gt;')
    expect(page).toContain('"label":"\\u003c!--\\u003cscript>"')
  })
})
