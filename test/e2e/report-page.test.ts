import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compareRuns } from '../../src/commands/runs-compare.ts'
import { writeReport } from '../../src/commands/report.ts'
import { makeRun } from '../../src/report/run.fixture.ts'
import { hasBrowser, launchBrowser, openPage, settle, show, type OpenPage, type View } from './browser.ts'

// The pages as people see them: in a browser, wide and narrow, light and dark. Screenshots stay in a temporary folder.
const folder = mkdtempSync(join(tmpdir(), 'lowrank-pages-'))
const wide: View = { width: 1200, height: 900, scheme: 'light' }
const phone: View = { width: 390, height: 844, scheme: 'light', mobile: true }

/** Of each plot: its name, the share of its pixels that are drawn, whether curves of its colours are among them. */
const inspect = `[...document.querySelectorAll('[data-chart]')].map((place) => {
  const canvas = place.querySelector('canvas')
  const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  let drawn = 0
  let coloured = 0
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] === 0) continue
    drawn++
    const [low, high] = [Math.min(data[at], data[at + 1], data[at + 2]), Math.max(data[at], data[at + 1], data[at + 2])]
    if (data[at + 3] > 200 && high - low > 90) coloured++
  }
  const box = place.getBoundingClientRect()
  return { id: place.dataset.chart, drawn: drawn / (width * height), coloured, fits: canvas.clientWidth <= box.width }
})`

interface Plot {
  readonly id: string
  readonly drawn: number
  readonly coloured: number
  readonly fits: boolean
}

async function check({ page, problems }: OpenPage, charts: readonly string[]): Promise<void> {
  expect(problems).toEqual([])
  const plots = await page.evaluate<Plot[]>(inspect)
  expect(plots.map(({ id }) => id)).toEqual(charts)
  for (const { id, drawn, coloured, fits } of plots) {
    expect(drawn, id).toBeGreaterThan(0.01)
    expect(coloured, id).toBeGreaterThan(80)
    expect(fits, id).toBe(true)
  }
  const overflow = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'
  expect(await page.evaluate<number>(overflow)).toBe(0)
}

describe.skipIf(!hasBrowser)('in a browser', () => {
  let browser: Browser
  let report: string
  let comparison: string
  const charts = ['loss', 'accuracy', 'gradNorm', 'learningRate', 'tokensPerSecond', 'memory']

  beforeAll(async () => {
    browser = await launchBrowser()
    const evil = `</script><script>document.title = 'broken'; console.error('broken')</script><img src=x onerror=alert(1)>`
    const long = 'model/'.repeat(30)
    const run = makeRun(join(folder, 'tickets-r32'), {
      steps: 1200,
      evalEvery: 100,
      samples: 3,
      completion: ` billing ${evil}`,
      message: `a warning ${'withoutaspace'.repeat(20)}`,
      config: { r: 32, loraAlpha: 64, learningRate: 1e-3, model: long, loggingSteps: 20 },
    })
    report = await writeReport(run)
    const other = makeRun(join(folder, 'tickets-r8'), { steps: 900, evalEvery: 100, config: { r: 8 } })
    comparison = join(folder, 'compare.html')
    await compareRuns([run, other], { output: comparison })
    console.log(`screenshots in ${folder}`)
  }, 120_000)
  afterAll(() => browser.close())

  const views: [string, View][] = [
    ['wide-light', wide],
    ['wide-dark', { ...wide, scheme: 'dark' }],
    ['phone-light', phone],
    ['phone-dark', { ...phone, scheme: 'dark' }],
  ]
  test.each(views)('the report, %s: all plots drawn, nothing overflows, no error', async (name, view) => {
    const opened = await openPage(browser, report, view)
    const { page } = opened
    await page.screenshot({ path: join(folder, `report-${name}.png`), fullPage: true })
    await check(opened, charts)
    expect(await page.evaluate('document.title')).toBe('tickets-r32: training report')
    expect(await page.evaluate('document.querySelectorAll("img").length')).toBe(0)
  })

  test.each(views)('the comparison, %s', async (name, view) => {
    const opened = await openPage(browser, comparison, view)
    const { page } = opened
    await page.screenshot({ path: join(folder, `compare-${name}.png`), fullPage: true })
    await check(opened, ['loss', 'evalLoss', ...charts.slice(1)])
  })
  test('plots follow the width and the colours of a page that is open', async () => {
    const opened = await openPage(browser, report, wide)
    const { page } = opened
    const loss = `document.querySelector('[data-chart=loss] canvas')`
    const width = (): Promise<number> => page.evaluate(`${loss}.clientWidth`)
    expect(await width()).toBeGreaterThan(900)
    const narrow = { ...wide, width: 700 }
    await show(page, narrow)
    expect(await width()).toBeLessThan(700)
    await check(opened, charts)
    const light = await page.evaluate(`${loss}.toDataURL()`)
    await show(page, { ...narrow, scheme: 'dark' })
    expect((await page.evaluate(`${loss}.toDataURL()`)) === light).toBe(false)
    expect(await page.evaluate(`document.querySelectorAll('canvas').length`)).toBe(charts.length)
    await check(opened, charts)
    await show(page, narrow)
    expect((await page.evaluate(`${loss}.toDataURL()`)) === light).toBe(true)
  })

  test('values at the pointer, of every curve', async () => {
    const opened = await openPage(browser, report, wide)
    const { page } = opened
    const place = `document.querySelector('[data-chart=loss] .u-over').getBoundingClientRect()`
    const { x, y, width, height } = await page.evaluate<DOMRectReadOnly>(`(${place}).toJSON()`)
    await page.mouse.move(x + width / 2, y + height / 2)
    await settle(page)
    const text = await page.evaluate<string>(`document.querySelector('[data-chart=loss] .tooltip').innerText`)
    expect(text).toMatch(/^step \d+/)
    expect(text).toMatch(/\d\.\d+ {1,2}training/)
    expect(text).toMatch(/\d\.\d+ {1,2}smoothed over 30 steps/)
    expect(text).toMatch(/\d\.\d+ {1,2}evaluation \(step 600\)|evaluation$/m)
    const shown = `[...document.querySelectorAll('.tooltip')].filter((one) => !one.hidden).length`
    expect(await page.evaluate(shown)).toBe(1)
    await page.mouse.move(2, 2)
    await settle(page)
    expect(await page.evaluate(shown)).toBe(0)
    await page.mouse.move(x + width / 2, y + height / 2)
    await settle(page)
    // Last: to capture the page resizes it, and the pointer may lose its place.
    await page.screenshot({ path: join(folder, 'tooltip.png'), fullPage: true })
  })
})

interface DOMRectReadOnly {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}
