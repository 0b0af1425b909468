import { PassThrough, Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { type Answering, Chat } from '../generate/chat.ts'
import type { Message } from '../text/template/template.ts'
import { LowrankError } from '../util/errors.ts'
import { talk, type ChatActions } from './chat.ts'
import { safe } from './output.ts'

/** Answers with what it was asked, and notes it. */
class Echo implements Answering<object> {
  readonly asked: { readonly messages: readonly Message[]; readonly adapter: string | null | undefined }[] = []

  async *stream(...[{ messages }, options, call]: Parameters<Answering<object>['stream']>) {
    this.asked.push({ messages, adapter: options?.adapter })
    const said = String(messages.at(-1)?.['content'])
    if (said === 'fail') throw new LowrankError('config', 'too long', { hint: 'shorter' })
    for (const text of [`${options?.adapter ?? 'base'}: `, said]) {
      if (call?.signal?.aborted === true) throw new LowrankError('cancelled', 'cancelled')
      yield { type: 'token', index: 0, text } as const
    }
  }
}

async function talked(lines: readonly string[], { adapter = null as string | null } = {}) {
  const model = new Echo()
  const chat = new Chat(model, {}, { adapter })
  const [out, err] = [[] as string[], [] as string[]]
  const known = ['tickets']
  const saved: string[] = []
  const actions: ChatActions = {
    adapters: () => known,
    load: async (folder) => {
      if (folder === 'nowhere') throw new LowrankError('adapter', 'nothing there', { hint: 'look' })
      known.push(folder)
      return folder
    },
    save: async (path) => void saved.push(path),
  }
  await talk(chat, actions, {
    stdin: Readable.from(lines.map((line) => `${line}\n`)),
    stdout: safe({ write: (text) => out.push(text) }),
    stderr: safe({ write: (text) => err.push(text) }),
    signal: new AbortController().signal,
  })
  return { model, chat, out: out.join(''), err: err.join(''), saved }
}

test('a turn has all turns before it, and its answer stays', async () => {
  const { model, chat, out } = await talked(['one', '', '  two '])
  expect(out).toBe('base: one\nbase: two\n')
  expect(model.asked[1]?.messages).toEqual([
    { role: 'user', content: 'one' },
    { role: 'assistant', content: 'base: one' },
    { role: 'user', content: 'two' },
  ])
  expect(chat.messages).toHaveLength(4)
})

test('commands: adapters, base, system, reset, save, help', async () => {
  const { model, err, saved } = await talked([
    'a',
    '/adapter tickets',
    'b',
    '/adapter other',
    'c',
    '/adapter',
    '/base',
    '/system Be brief.',
    '/reset',
    'd',
    '/system',
    'e',
    '/save chat.jsonl',
    '/save',
    '/what',
  ])
  expect(model.asked.map(({ adapter }) => adapter)).toEqual([null, 'tickets', 'other', null, null])
  expect(model.asked[3]?.messages).toEqual([
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'd' },
  ])
  expect(model.asked[4]?.messages[0]).toEqual({ role: 'user', content: 'd' })
  expect(saved).toEqual(['chat.jsonl'])
  expect(err).toContain('adapters: tickets, other')
  expect(err).toContain('/save needs')
  expect(err).toContain('/compare')
})

test('compare answers what was said last with base and adapters, and leaves the conversation', async () => {
  const { model, chat, out, err } = await talked(['/compare', 'one', '/compare'], { adapter: 'tickets' })
  expect(err).toContain('nothing was said')
  expect(out).toContain('tickets: one')
  expect(out).toMatch(/base: one +\| tickets: one/)
  expect(chat.messages).toHaveLength(2)
  expect(model.asked.slice(1).map(({ messages }) => messages)).toEqual([
    [{ role: 'user', content: 'one' }],
    [{ role: 'user', content: 'one' }],
  ])
})

test('an error is told, leaves no turn, and the conversation goes on; /exit ends it', async () => {
  const { chat, out, err } = await talked(['one', 'fail', '/adapter nowhere', 'two', '/exit', 'three'])
  expect(err).toContain('error: too long\nhint: shorter\n')
  expect(err).toContain('error: nothing there\n')
  expect(out).toBe('base: one\nbase: two\n')
  expect(chat.messages).toHaveLength(4)
})

test('an answer that is ended early stays as far as it came', async () => {
  const chat = new Chat(new Echo(), {})
  const controller = new AbortController()
  const pieces: string[] = []
  for await (const piece of chat.say('one', { signal: controller.signal })) {
    pieces.push(piece)
    controller.abort()
  }
  expect(pieces).toEqual(['base: '])
  expect(chat.messages.at(-1)).toEqual({ role: 'assistant', content: 'base: ' })
})

test('a signal ends the conversation while it waits', async () => {
  const controller = new AbortController()
  const chat = new Chat(new Echo(), {})
  const output = safe({ write: () => {} })
  const actions: ChatActions = { adapters: () => [], load: async (name) => name, save: async () => {} }
  const talking = talk(chat, actions, {
    stdin: new PassThrough(),
    stdout: output,
    stderr: output,
    signal: controller.signal,
  })
  setTimeout(() => controller.abort(), 20)
  await talking
})
