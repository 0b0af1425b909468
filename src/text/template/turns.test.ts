import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { stream, uniform } from '../../util/random.ts'
import { namedTemplates } from './named.ts'
import { ChatTemplate, type Conversation, type Message, TemplateProblem } from './template.ts'
import { TurnFinder } from './turns.ts'

const folder = join(import.meta.dirname, '../../../test/golden/templates')
const special = { bos_token: '<s>', eos_token: '</s>' }

/** Tokens of their own that the public models have. */
const added =
  '<s> </s> <|im_start|> <|im_end|> <|im_sep|> <|eot_id|> <|start_header_id|> <|end_header_id|> <start_of_turn> <end_of_turn> ' +
  '<|end|> <|user|> <|assistant|> <|system|> <|end_of_text|> <|start_of_role|> <|end_of_role|> <|END_OF_TURN_TOKEN|> ' +
  '<|START_OF_TURN_TOKEN|> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜>'
const finderOf = (template: ChatTemplate): TurnFinder => new TurnFinder(template, added.split(' '))

const templates: Record<string, string> = {
  ...Object.fromEntries(
    readdirSync(folder)
      .filter((name) => name.endsWith('.jinja'))
      .map((name) => [name.slice(0, -6), readFileSync(join(folder, name), 'utf8')]),
  ),
  ...Object.fromEntries(Object.entries(namedTemplates).map(([name, source]) => [`by name: ${name}`, source])),
}

const words = 'yes no the printer is "on fire" é 日本 😀 a<b {{x}} </x> 1. - \\n \n \t [y] #z % & <|none|>'.split(' ')

function randomConversation(seed: number): Conversation {
  const values = uniform(stream(seed, 'conversation'), 400)
  let at = 0
  const next = (): number => values[at++ % values.length]!
  const text = (): string =>
    Array.from({ length: 1 + Math.floor(next() * 6) }, () => words[Math.floor(next() * words.length)]).join(' ')
  const messages: Message[] = []
  for (let turn = 0; turn < 1 + Math.floor(next() * 4); turn++) {
    messages.push({ role: 'user', content: text() }, { role: 'assistant', content: text() })
  }
  return { messages }
}

/** What ends a turn, and what a template writes before an answer besides. */
const ends: Record<string, string> = {
  'llama-2': '</s>',
  'mistral-v0.1': '</s>',
  'mistral-v0.3': '</s>',
  'mistral-nemo': '</s>',
  zephyr: '</s>',
  'olmo-2': '</s>',
  'phi-3': '<|end|>',
  'gemma-2': '<end_of_turn>',
  'gemma-3': '<end_of_turn>',
  'llama-3': '<|eot_id|>',
  'llama-3.1': '<|eot_id|>',
  'llama-3.2': '<|eot_id|>',
  'granite-3': '<|end_of_text|>',
  'command-r-plus': '<|END_OF_TURN_TOKEN|>',
  'deepseek-v3': '<｜end▁of▁sentence｜>',
  'by name: llama-3': '<|eot_id|>',
  'by name: gemma': '<end_of_turn>',
  'by name: mistral': '</s>',
  'by name: zephyr': '</s>',
  'by name: alpaca': '</s>',
}

describe.each(Object.entries(templates))('%s', (name, source) => {
  const template = new ChatTemplate(source, name, special)
  const finder = finderOf(template)

  test('of random conversations exactly what the assistant says is found, each turn with its end', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const conversation = randomConversation(seed)
      const turns = conversation.messages.filter(({ role }) => role === 'assistant')
      const { text, spans } = finder.mark(conversation, 'all', () => true)
      // The last line end within marks is that of a template's own.
      const found = spans.map(({ start, end }) => text.slice(start, end).replace(/(<\|im_end\|>)\n$/, '$1'))
      const end = name === 'chatglm-3' ? '' : (ends[name] ?? '<|im_end|>')
      expect(found).toHaveLength(turns.length)
      for (const [i, part] of found.entries()) {
        expect(part.endsWith(end)).toBe(true)
        expect(
          part
            .slice(0, part.length - end.length)
            .replace('<think>\n\n</think>', '')
            .trim(),
        ).toBe(String(turns[i]!['content']).trim())
      }
    }
  })

  test('the last turn alone is the last of all', () => {
    const conversation = randomConversation(7)
    const all = finder.mark(conversation, 'all', () => true)
    expect(finder.mark(conversation, 'last', () => true)).toEqual({ text: all.text, spans: all.spans.slice(-1) })
    expect(finder.mark(conversation, 'all', () => false).spans).toEqual([])
  })
})

describe('what cannot be told apart is refused', () => {
  const mark = (source: string, messages: Message[]): unknown =>
    finderOf(new ChatTemplate(source, 'T', special)).mark({ messages }, 'all', () => true)
  const talk = ['a', 'b', 'c', 'd'].map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content }))
  const prompt = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

  test('a template that leaves out what was thought in earlier turns', () => {
    const source = templates['qwen-3']!
    const thought = { role: 'assistant', content: '<think>\nHm.\n</think>\n\nb' }
    expect(() => mark(source, [talk[0]!, thought, talk[2]!, talk[3]!])).toThrow(
      'T writes message 2 (assistant) in another way once something follows it',
    )
    expect(() => mark(source, [talk[0]!, thought])).not.toThrow()
    const last = finderOf(new ChatTemplate(source, 'T')).mark(
      { messages: [talk[0]!, thought, talk[2]!, talk[3]!] },
      'last',
      () => true,
    )
    expect(last.spans.map(({ start, end }) => last.text.slice(start, end))).toEqual([
      '<think>\n\n</think>\n\nd<|im_end|>',
    ])
  })

  test('a template that counts what follows', () => {
    const source = `{{ messages | length }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}${prompt}`
    expect(() => mark(source, talk)).toThrow(
      'T writes what comes before message 2 (assistant) in another way afterwards',
    )
  })

  test('a template that does not write calls of tools', () => {
    const call = { role: 'assistant', content: '', tool_calls: [{ function: { name: 'weather', arguments: {} } }] }
    expect(() => mark(templates['zephyr']!, [talk[0]!, call])).toThrow(
      'message 2 calls the tool weather, which the template does not write',
    )
    expect(mark(templates['qwen-2.5']!, [talk[0]!, call])).toBeTruthy()
  })

  test('a template that refuses the order of roles', () => {
    expect(() => mark(templates['gemma-2']!, [talk[1]!, talk[0]!])).toThrow(TemplateProblem)
  })
})
