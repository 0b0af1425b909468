import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainConfigInput } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import { dayOf } from '../../src/text/template/date.ts'
import {
  collect,
  evaluateByCommand,
  last,
  makeTinyModel,
  only,
  readJson,
  sha256,
  temporaryFolder,
  writeData,
} from './support.ts'

// A template that writes the day, as that of Llama 3.2 does.
const template =
  "{{ strftime_now('%d %b %Y') }}{% for m in messages %}\n{{ m.role }}: {{ m.content }}</s>{% endfor %}" +
  '{% if add_generation_prompt %}\nassistant: {% endif %}'

const folder = temporaryFolder()
const data = writeData(folder, { train: 8, valid: 4 })
const chatTemplate = join(folder, 'dated.jinja')
let common: TrainConfigInput

beforeAll(async () => {
  writeFileSync(chatTemplate, template)
  const model = await makeTinyModel(folder)
  const steps = { maxSteps: 4, saveSteps: 2, evalSteps: 4, learningRate: 1e-2, samples: 0 }
  common = { model, ...data, ...steps, outputDir: '', maxLength: 128, chat: true, chatTemplate, threads: 1 }
})

const run = (name: string, options: Partial<TrainConfigInput> = {}): ReturnType<typeof collect> =>
  collect({ ...common, outputDir: join(folder, name), ...options })
const weights = (name: string): string => sha256(join(folder, name, 'adapter_model.safetensors'))
const recorded = (name: string): unknown =>
  (readJson(join(folder, name, 'run.json')) as { config: { templateDate?: string } }).config.templateDate

test('a run writes the day on which it began, and that when it goes on too', async () => {
  await run('today')
  expect(recorded('today')).toBe(dayOf(new Date()))
  const events = await run('then', { templateDate: '2001-02-03' })
  expect(recorded('then')).toBe('2001-02-03')
  expect(weights('then')).not.toBe(weights('today'))
  // Today is another day.
  const resumeFrom = join(folder, 'then/checkpoint-2')
  await run('later', { resumeFrom })
  expect(recorded('later')).toBe('2001-02-03')
  expect(weights('later')).toBe(weights('then'))
  await expect(run('another', { resumeFrom, templateDate: '2001-02-04' })).rejects.toThrow(
    'the run has changed since:\n  templateDate: "2001-02-03" -> "2001-02-04"',
  )

  const options = { model: common.model, data: data.valid, maxLength: 128, chat: true, chatTemplate, threads: 1 }
  const evaluated = last(only(events, 'eval'))
  const adapter = join(folder, 'then')
  expect((await evaluateByCommand({ ...options, adapter })).loss).toBe(evaluated.loss)
  expect((await evaluateByCommand({ ...options, adapter, templateDate: '2011-12-13' })).loss).not.toBe(evaluated.loss)
})

test('of a template without a day none is recorded', async () => {
  await run('plain', { chatTemplate: 'alpaca', maxSteps: 1 })
  expect(recorded('plain')).toBeUndefined()
})
