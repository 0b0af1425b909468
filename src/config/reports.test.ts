import { expect, test } from 'vitest'
import { parseTrainConfig } from './index.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }

test('report_to: trackers, each once; none is none', () => {
  const parse = (value: unknown): unknown =>
    parseTrainConfig({ ...required, report_to: value, webhookUrl: 'http://h' }).reportTo
  expect(parse(['webhook', 'tensorboard', 'webhook'])).toEqual(['webhook', 'tensorboard'])
  expect(parse(['none'])).toEqual([])
  expect(() => parse(['wandb'])).toThrow('a list of tensorboard and webhook, or none')
  expect(() => parseTrainConfig({ ...required, reportTo: ['webhook'] })).toThrow('webhook needs webhookUrl')
  for (const webhookUrl of ['file:///etc/secret', 'htps://me:secret@example.org', 'https://me:secret@', ['secret']]) {
    const parse = (): unknown => parseTrainConfig({ ...required, webhookUrl })
    expect(parse).toThrow('webhookUrl: found something else, expected an address that begins with http:// or https://')
    expect(parse).not.toThrow('secret')
  }
})
