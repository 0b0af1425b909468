import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test, vi } from 'vitest'
import type { TrainEvent } from '../../train/events.ts'
import { maskedCrc32c } from './crc32c.ts'
import { EventFile } from './tensorboard.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-tensorboard-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeEach(() => {
  vi.spyOn(Date, 'now').mockReturnValue(1_790_000_000_125)
})

const golden = (name: string): Buffer =>
  readFileSync(new URL(`../../../test/golden/tensorboard/${name}.bin`, import.meta.url))

const step: TrainEvent = {
  type: 'step',
  step: 2,
  steps: 3,
  epoch: 2 / 3,
  loss: 2,
  learningRate: 1e-4,
  gradNorm: 0.5,
  tokens: 1024,
  realTokens: 1000,
  paddingShare: 0.02,
  labelTokens: 200,
  seconds: 1.26,
  tokensPerSecond: 812,
  bytesRead: 0,
  memory: 1.2e9,
  secondsLeft: 1,
}

const events: readonly TrainEvent[] = [
  { type: 'status', message: 'reading' },
  step,
  { type: 'log', step: 2, epoch: 2 / 3, loss: 2.25, learningRate: 1e-4, gradNorm: 0.53 },
  {
    type: 'eval',
    step: 2,
    epoch: 2 / 3,
    seconds: 1.25,
    best: true,
    loss: 1.9,
    perplexity: 6.6859,
    tokenAccuracy: 0.615,
    labelTokens: 900,
    examples: 80,
  },
]

/** The only file of a folder. */
function fileIn(path: string): { name: string; bytes: Buffer } {
  const names = readdirSync(path)
  expect(names).toHaveLength(1)
  return { name: names[0]!, bytes: readFileSync(join(path, names[0]!)) }
}

test("a run's file has the bytes that TensorBoard's own writer makes", () => {
  const path = join(folder, 'first')
  const file = new EventFile({ folder: path, config: { r: 8 } })
  for (const event of events) file.event(event)
  file.close()
  const { name, bytes } = fileIn(path)
  expect(name).toMatch(/^events\.out\.tfevents\.1790000000\./)
  expect(bytes.equals(golden('first'))).toBe(true)
  expect(file.warnings()).toEqual([])
})

test('a resumed run begins a file that hides the steps it computes again', () => {
  const path = join(folder, 'resumed')
  const file = new EventFile({ folder: path, config: { r: 8 }, resumedAt: 300 })
  file.event({
    type: 'done',
    steps: 1_000_000,
    trainLoss: 2,
    outputDir: 'out',
    seconds: 12.5,
    peakMemory: 1,
    best: undefined,
  } as TrainEvent)
  file.close()
  expect(fileIn(path).bytes.equals(golden('resumed'))).toBe(true)
})

test('every record has sound checksums', () => {
  const bytes = golden('first')
  let records = 0
  for (let at = 0; at < bytes.length; records++) {
    const length = Number(bytes.readBigUInt64LE(at))
    expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc32c(bytes.subarray(at, at + 8)))
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(bytes.subarray(at + 12, at + 12 + length)))
    at += length + 16
  }
  expect(records).toBe(4)
})

test('a folder that cannot be made is reported once, and stops nothing', () => {
  const taken = join(folder, 'taken')
  writeFileSync(taken, '')
  const file = new EventFile({ folder: join(taken, 'runs'), config: {} })
  for (const event of events) file.event(event)
  file.close()
  const warnings = file.warnings()
  expect(warnings).toHaveLength(1)
  expect(warnings[0]).toContain('no more events of this run are written for TensorBoard')
  expect(file.warnings()).toEqual([])
})
