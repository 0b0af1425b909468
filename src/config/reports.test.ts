import { expect, test } from 'vitest'
import { parseTrainConfig } from '../config.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }

test('report_to: trackers, each once; none is none', () => {
  const parse = (value: unknown): unknown =>
    parseTrainConfig({ ...required, report_to: value, webhookUrl: 'http://h' }).reportTo
  expect(parse(['webhook', 'tensorboard', 'webhook'])).toEqual(['webhook', 'tensorboard'])
  expect(parse(['none'])).toEqual([])
  expect(() => parse(['wandb'])).toThrow('a list of tensorboard and webhook, or none')
  expect(() => parseTrainConfig({ ...required, reportTo: ['webhook'] })).toThrow('webhook needs webhookUrl')
  expect(() => parseTrainConfig({ ...required, webhookUrl: 'file:///etc' })).toThrow('http:// or https://')
})
