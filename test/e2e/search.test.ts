import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { SearchResult } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import { readRun } from '../../src/runs/read.ts'
import { processesOf, runningJobs, startGroup, until } from './jobs.ts'
import {
  collect,
  flags,
  lowrank,
  makeTinyModel,
  quickstart,
  readJson,
  sha256,
  temporaryFolder,
  writeData,
} from './support.ts'

const folder = temporaryFolder()
const common = {
  ...writeData(folder, { train: 16, valid: 6 }),
  maxLength: 48,
  maxSteps: 12,
  perDeviceTrainBatchSize: 2,
  threads: 1,
}
const searched = { rates: '1e-3,1e-2', alphas: '1', targets: 'config', startRank: 2 }
let model = ''
beforeAll(async () => {
  model = await makeTinyModel(folder)
})

const searchArgs = (outputDir: string, maxRank = 4): string[] => [
  'search',
  '--json',
  ...flags({ ...common, ...searched, model, outputDir, maxRank }),
]
let plain: SearchResult | undefined

test('the winner of a search is the run that train makes with its options', async () => {
  const outputDir = join(folder, 'out')
  const args = searchArgs(outputDir)
  const { code, stdout, stderr } = await lowrank(args)
  expect(code, stderr).toBe(0)
  plain = JSON.parse(stdout) as SearchResult
  const { best, stages, notes } = plain
  const [halved, ladder] = stages
  expect(halved?.titles).toEqual(['trial', 'step 4', 'step 12'])
  // Both are judged after a third of the steps, one at the end.
  expect(halved?.rows.map((row) => row.filter((cell) => cell !== '').length).toSorted()).toEqual([2, 3])
  expect(ladder?.rows.map(([r]) => r)).toEqual(['2', '4'])
  // Of two rates each is at an edge.
  expect(notes[0]).toMatch(/^The best learning rate, .* is the (highest|lowest) that was tried/)
  expect(notes.at(-1)).toMatch(/^(Plateau at r = 2|Stopped at r = 4)/)
  const run = await readRun(best.run)
  expect(run.status).toBe('done')
  expect(run.config).toMatchObject({ r: best.r, learningRate: best.learningRate, loraAlpha: best.loraAlpha })
  expect(best.evalLoss).toBe(run.figures.lastEval?.loss)
  // Paused after a third of the steps and gone on, it has the bytes of a run in one piece.
  const again = join(folder, 'again')
  const { r, loraAlpha, learningRate } = best
  await collect({ ...common, model, r, loraAlpha, learningRate, outputDir: again })
  const adapter = (out: string): string => sha256(join(out, 'adapter_model.safetensors'))
  expect(adapter(best.run)).toBe(adapter(again))
  const second = await lowrank(args)
  expect(second.stdout).toBe(stdout)
  expect(second.stderr).not.toContain(': train,')
  const refused = await lowrank([...args, '--method', 'full'])
  expect(refused.stderr).toContain('full has neither rank nor alpha to search for')
  expect(refused.code).toBe(2)
}, 60_000)

test.skipIf(process.platform !== 'linux')(
  'killed with all of its group, and a child of the next call alone, a search finds the same',
  async () => {
    const outputDir = join(folder, 'killed')
    const experiment = join(outputDir, 'search')
    const first = startGroup(searchArgs(outputDir, 2))
    await until(() => runningJobs(experiment).length > 0)
    process.kill(-first.pid!, 'SIGKILL')
    await until(() => processesOf(outputDir).length === 0)
    const old = new Set(runningJobs(experiment))
    expect(old.size).toBe(1)
    const second = startGroup(searchArgs(outputDir, 2))
    const ended = new Promise((resolve) => second.on('close', resolve))
    const alive = () => runningJobs(experiment).filter((pid) => !old.has(pid))
    await until(() => alive().length > 0)
    process.kill(alive()[0]!, 'SIGKILL')
    expect(await ended).toBe(0)
    const { stages, best } = readJson(join(experiment, 'search.json')) as SearchResult
    expect(stages[0]).toEqual(plain?.stages[0])
    const adapter = (out: string): string => sha256(join(out, 'adapter_model.safetensors'))
    expect(adapter(best.run)).toBe(adapter(join(folder, 'out/search/runs', basename(best.run))))
    expect(processesOf(outputDir)).toEqual([])
  },
  60_000,
)

test('where losses jump on a base in fp4, the same is trained on nf4, and both curves are shown', async () => {
  const outputDir = join(folder, 'spiky')
  const train = join(folder, 'spiky.jsonl')
  // What is learned at once, and now and then something that is not.
  const usual = { prompt: 'Ticket', completion: 'category: stock' }
  const odd = { prompt: 'Zq', completion: '#9 xk7 %% vw0 @@ 31 jj ~~ 88 zz' }
  const lines = Array.from({ length: 44 }, (_, i) => JSON.stringify(i % 11 === 10 ? odd : usual))
  writeFileSync(train, `${lines.join('\n')}\n`)
  const options = { model: quickstart, train, valid: common.valid, maxLength: 48, threads: 1, outputDir }
  const training = { method: 'qlora', bnb4bitQuantType: 'fp4', perDeviceTrainBatchSize: 1, numTrainEpochs: 1 }
  const asked = { rates: '1e-2', alphas: '1', targets: 'config', startRank: 4, maxRank: 4 }
  const { code, stdout, stderr } = await lowrank(['search', '--json', ...flags({ ...options, ...training, ...asked })])
  expect(code, stderr).toBe(0)
  const { best, notes, page } = JSON.parse(stdout) as SearchResult
  const spiked = notes.find((note) => note.startsWith('At r'))
  expect(spiked).toMatch(/^At r = 4 the loss has jumped \d+ times on a base in fp4; on nf4 .* (nf4|fp4) is taken/)
  const taken = /(nf4|fp4) is taken/.exec(spiked!)?.[1]
  expect((await readRun(best.run)).config).toMatchObject({ bnb4bitQuantType: taken })
  const shown = readFileSync(page, 'utf8')
  for (const method of ['qlora-fp4', 'qlora']) expect(shown).toContain(`${method}-r4-`)
}, 60_000)
