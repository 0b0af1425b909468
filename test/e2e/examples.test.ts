import { join } from 'node:path'
import { checkData } from 'lowrank'
import { describe, expect, test } from 'vitest'
import { calls, sizes as callSizes } from '../../examples/dialogue-summary/calls.js'
import { writeRows } from '../../examples/lib/lowrank.js'
import { share, table } from '../../examples/lib/table.js'
import cites from '../../examples/support-chat/cites.js'
import { learned, questions, unseen } from '../../examples/support-chat/handbook.js'
import { nearest } from '../../examples/support-chat/retrieval.js'
import { sites, sizes as ticketSizes, tickets } from '../../examples/ticket-classification/tickets.js'
import { trainOptions } from '../../src/config/index.ts'
import { unusedOptions } from '../../src/config/unused.ts'
import { loadConfigFile } from '../../src/config/index.ts'
import { quickstart, root, temporaryFolder } from './support.ts'

/*
 * The worked examples without their training: their data are the same each time and pass `data check`, their configurations have a meaning.
 */

const parts = ['train', 'test'] as const
const examples = {
  'ticket-classification': {
    sizes: Object.keys(sites).map(() => ticketSizes),
    make: () =>
      Object.keys(sites).map((site) => parts.map((part) => tickets(site, { part, count: ticketSizes[part] }))),
  },
  'dialogue-summary': {
    sizes: [callSizes],
    make: () => [parts.map((part) => calls({ part, count: callSizes[part] }))],
  },
  'support-chat': {
    sizes: [{ train: 112, test: 48 }],
    make: () => [[questions(learned), questions(unseen)]],
  },
}

describe.each(Object.entries(examples))('%s', (name, { sizes, make }) => {
  test('has the same data each time, none of it twice, and passes data check', async () => {
    const made = make()
    expect(made.map(([train = [], test = []]) => ({ train: train.length, test: test.length }))).toEqual(sizes)
    expect(make()).toEqual(made)
    for (const [train = [], test = []] of made) {
      const folder = temporaryFolder()
      const [data, valid] = [join(folder, 'train.jsonl'), join(folder, 'test.jsonl')]
      await writeRows(data, train)
      await writeRows(valid, test)
      const report = await checkData(data, { model: quickstart, valid, chatTemplate: 'alpaca', maxLength: 512 })
      expect(report.findings).toEqual([])
      expect(report.malformed).toBe(0)
    }
  })

  test('has a configuration without a problem and without an idle option', () => {
    const config = trainOptions.read([loadConfigFile(join(root, 'examples', name, 'config.yaml'))])
    expect(unusedOptions(config)).toEqual([])
  })
})

test('every queue has tickets in both parts', () => {
  for (const [name, { queues }] of Object.entries(sites)) {
    for (const part of parts) {
      const found = tickets(name, { part, count: ticketSizes[part] }).map(({ completion }) => completion.trim())
      expect(new Set(found)).toEqual(new Set(queues))
    }
  }
})

test('passages are ordered by their angle once what all have in common is gone', () => {
  const vectors = [
    [100, 5, 0.1],
    [100, -5, 0.1],
    [100, 0, -0.2],
  ].map((one) => Float32Array.from(one))
  const near = nearest(['a', 'b', 'c'], vectors, [Float32Array.of(90, 1, 0), Float32Array.of(90, -1, 0.1)])
  expect(near(Float32Array.of(91, 2, 0.05))[0]).toBe('a')
  expect(near(Float32Array.of(91, -2, 0.05))[0]).toBe('b')
  expect(near(Float32Array.of(91, 0, -0.3))[0]).toBe('c')
})

test('what the tables show', () => {
  expect(share([0.5])).toBe('50.0')
  expect(share([0.5, 0.7])).toBe('60.0 (50.0 to 70.0)')
  expect(table(['a', 'b'], [['long', '1']])).toBe('| a    | b |\n| ---- | - |\n| long | 1 |')
  expect([cites('', 'It does. [Tank]', 'Yes. [Tank]'), cites('', '[Wick] No.', 'Yes. [Tank]')]).toEqual([1, 0])
})
