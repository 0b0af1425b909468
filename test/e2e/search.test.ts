import { join } from 'node:path'
import type { SearchResult } from 'lowrank'
import { expect, test } from 'vitest'
import { readRun } from '../../src/runs/read.ts'
import { collect, flags, lowrank, makeTinyModel, sha256, temporaryFolder, writeData } from './support.ts'

const folder = temporaryFolder()

test('the winner of a search is the run that train makes with its options', async () => {
  const model = await makeTinyModel(folder)
  const common = {
    ...writeData(folder, { train: 16, valid: 6 }),
    model,
    maxLength: 48,
    maxSteps: 12,
    perDeviceTrainBatchSize: 2,
    threads: 1,
  }
  const outputDir = join(folder, 'out')
  const searched = { rates: '1e-3,1e-2', alphas: '1', targets: 'config', startRank: 2, maxRank: 4 }
  const args = ['search', '--json', ...flags({ ...common, ...searched, outputDir })]
  const { code, stdout, stderr } = await lowrank(args)
  expect(code, stderr).toBe(0)
  const { best, stages, notes } = JSON.parse(stdout) as SearchResult
  const [halved, ladder] = stages
  expect(halved?.titles).toEqual(['trial', 'step 4', 'step 12'])
  // Both are judged after a third of the steps, one at the end.
  expect(halved?.rows.map((row) => row.filter((cell) => cell !== '').length).toSorted()).toEqual([2, 3])
  expect(ladder?.rows.map(([r]) => r)).toEqual(['2', '4'])
  expect(notes.at(-1)).toMatch(/^(Plateau at r = 2|Stopped at r = 4)/)
  const run = await readRun(best.run)
  expect(run.status).toBe('done')
  expect(run.config).toMatchObject({ r: best.r, learningRate: best.learningRate, loraAlpha: best.loraAlpha })
  expect(best.evalLoss).toBe(run.figures.lastEval?.loss)
  // Paused after a third of the steps and gone on, it has the bytes of a run in one piece.
  const again = join(folder, 'again')
  const { r, loraAlpha, learningRate } = best
  await collect({ ...common, r, loraAlpha, learningRate, outputDir: again })
  const adapter = (out: string): string => sha256(join(out, 'adapter_model.safetensors'))
  expect(adapter(best.run)).toBe(adapter(again))
  const second = await lowrank(args)
  expect(second.stdout).toBe(stdout)
  expect(second.stderr).not.toContain(': train,')
  const refused = await lowrank([...args, '--method', 'full'])
  expect(refused.stderr).toContain('full has neither rank nor alpha to search for')
  expect(refused.code).toBe(2)
}, 60_000)
