import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { evaluate, loadModel, previewData } from 'lowrank'
import { expect, test } from 'vitest'
import { quickstart } from './support.ts'

/** Processes that this one has started, by their state: Z for those that have ended, and that nobody has taken notice of. */
function children(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const text = readFileSync(join('/proc', pid, 'stat'), 'utf8')
        const [state = '', parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
        return Number(parent) === process.pid ? [state] : []
      } catch {
        return []
      }
    })
}

test.skipIf(process.platform !== 'linux')('calls leave no process behind, neither running nor ended', async () => {
  const before = children().length
  const model = quickstart
  await evaluate({ model, data: join(dirname(quickstart), 'valid.jsonl') })
  // An error that comes as soon as the tokenizer has said something.
  await expect(evaluate({ model, data: join(dirname(quickstart), 'nowhere.jsonl') })).rejects.toThrow('nowhere')
  await previewData(join(dirname(quickstart), 'valid.jsonl'), { model, rows: 1 })
  const loaded = await loadModel({ model })
  await loaded.generate('Ticket', { maxNewTokens: 2 })
  await loaded.close()
  await loaded.close()
  await sleep(200)
  expect(children()).toHaveLength(before)
})
