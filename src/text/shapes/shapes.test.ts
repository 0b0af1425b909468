import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../formats/json.ts'
import { type Columns, type Sample, type ShapeName, ShapeReader, shapes } from './index.ts'

const read = (value: unknown, name?: ShapeName, columns?: Columns): unknown =>
  new ShapeReader(name, columns).read(value)
const user = (content: string): object => ({ role: 'user', content })
const assistant = (content: string): object => ({ role: 'assistant', content })
const call = (args: unknown): object => ({ id: 'a', type: 'function', function: { name: 'f', arguments: args } })

describe('the columns that are read', () => {
  const all = ['id', 'system', 'text', 'input', 'output', 'instruction', 'prompt', 'question', 'tools', 'messages']
  it.each<[string, string[], ShapeName | undefined, Columns | undefined, string[] | undefined]>([
    ['of the shape that is recognised', all, undefined, undefined, ['messages', 'tools']],
    ['of the shape that is named', all, 'alpaca', undefined, ['instruction', 'input', 'output', 'system']],
    ['by other names', all, 'pairs', { prompt: 'question', completion: 'text' }, ['question', 'text']],
    ['of a shape by other names', ['q', 'a', 'id'], undefined, { prompt: 'q', completion: 'a' }, ['q', 'a']],
    ['as far as they are there', ['prompt', 'id'], undefined, { completion: 'a' }, ['prompt']],
    ['all of no known shape', ['a', 'b'], undefined, undefined, undefined],
    ['all where none is there', ['a', 'b'], 'text', undefined, undefined],
  ])('%s', (_, columns, name, mapping, expected) => {
    expect(new ShapeReader(name, mapping).wanted(columns)).toEqual(expected)
  })

  it('are all that a shape reads', () => {
    for (const shape of shapes) {
      const asked = new Set<string>()
      const text = { role: 'user', content: 'a', from: 'human', value: 'a' }
      const answer = { role: 'assistant', content: 'a', from: 'gpt', value: 'a' }
      const record = new Proxy({} as JsonObject, {
        get: (_, key) => {
          if (typeof key === 'string') asked.add(key)
          return key === 'tools' ? [{}] : key === 'messages' || key === 'conversations' ? [text, answer] : 'a'
        },
      })
      shape.read(record)
      expect(
        [...asked].every((key) => shape.uses.includes(key)),
        `${shape.name}: ${[...asked].join()}`,
      ).toBe(true)
    }
  })
})

describe('what a record becomes', () => {
  it.each<[string, object, unknown]>([
    ['pairs', { prompt: 'a', completion: 'b', id: 1 }, { kind: 'pair', prompt: 'a', completion: 'b' }],
    ['text', { text: 'a' }, { kind: 'text', text: 'a' }],
    [
      'alpaca',
      { instruction: 'a', input: 'b', output: 'c' },
      { kind: 'chat', messages: [user('a\n\nb'), assistant('c')] },
    ],
    [
      'alpaca without an input, with a system',
      { instruction: 'a', input: '', output: 'c', system: 's' },
      { kind: 'chat', messages: [{ role: 'system', content: 's' }, user('a'), assistant('c')] },
    ],
    [
      'ShareGPT, with roles of its own',
      {
        conversations: [
          { from: 'Human', value: 'a' },
          { from: 'gpt', value: 'b' },
        ],
      },
      { kind: 'chat', messages: [user('a'), assistant('b')] },
    ],
    [
      'ShareGPT with role and content, and tools as text',
      {
        conversations: [
          { role: 'user', content: 'a' },
          { role: 'assistant', content: 'b' },
        ],
        tools: '[{"name":"f"}]',
      },
      { kind: 'chat', messages: [user('a'), assistant('b')], tools: [{ name: 'f' }] },
    ],
    [
      'parts of text, a name, a weight of 0',
      {
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'a' },
              { type: 'text', text: 'b' },
            ],
            name: 'Ada',
          },
          { role: 'assistant', content: 'c', weight: 0 },
          { role: 'assistant', content: 'd', weight: 1 },
        ],
      },
      {
        kind: 'chat',
        messages: [{ role: 'user', content: 'ab', name: 'Ada' }, assistant('c'), assistant('d')],
        unlearned: new Set([1]),
      },
    ],
    [
      'calls of tools, with arguments as JSON text',
      { messages: [user('a'), { role: 'assistant', content: null, tool_calls: [call('{"x":1}')] }], tools: [{}] },
      {
        kind: 'chat',
        messages: [user('a'), { role: 'assistant', content: null, tool_calls: [call({ x: 1 })] }],
        tools: [{}],
      },
    ],
  ])('%s', (_, record, expected) => {
    expect(read(record)).toMatchObject(expected as object)
  })

  it('columns under other names, also one that takes the place of another', () => {
    expect(read({ q: 'a', prompt: 'x', a: 'b' }, undefined, { prompt: 'q', completion: 'a' })).toEqual({
      kind: 'pair',
      prompt: 'a',
      completion: 'b',
    })
    expect(read({ q: 'a' }, undefined, { prompt: 'question' })).toMatchObject({
      problem: 'the column "question" is missing; found "q"',
    })
  })

  it('all records of a file have the shape of the first one that can be read', () => {
    const reader = new ShapeReader(undefined)
    expect(reader.read({ x: 1 })).toHaveProperty('problem')
    expect((reader.read({ messages: [user('a'), assistant('b')] }) as Sample).kind).toBe('chat')
    expect(reader.read({ prompt: 'a', completion: 'b' })).toEqual({
      problem: '"messages" is missing; found "prompt", "completion"',
    })
  })
})

describe('what is wrong with a record', () => {
  it.each<[unknown, string]>([
    [{ messages: 'a' }, '"messages" is text, not a list'],
    [{ messages: [] }, 'the conversation is empty'],
    [{ messages: [user('a')] }, 'the assistant says nothing'],
    [{ messages: ['a'] }, 'message 1: text, not an object with "role" and "content"'],
    [{ messages: [{ content: 'a' }] }, 'message 1: "role" is missing; found "content"'],
    [{ messages: [{ role: 'bot', content: 'a' }] }, 'message 1: the role "bot" is not one of system, developer'],
    [{ messages: [user('a'), { role: 'assistant' }] }, 'message 2: "content" is missing'],
    [{ messages: [user('a'), { role: 'assistant', content: null }] }, 'message 2: "content" is null, not text'],
    [{ messages: [user('a'), { role: 'assistant', content: 7 }] }, 'message 2: "content" is the number 7, not text'],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }, assistant('b')] },
      'message 1: "content" holds a part of type "image_url", not text',
    ],
    [{ messages: [user('a\ud800'), assistant('b')] }, 'message 1: "content" is no valid Unicode'],
    [{ messages: [user('a'), { ...assistant('b'), weight: 0.5 }] }, 'message 2: "weight" is 0.5, not 0 or 1'],
    [{ messages: [{ ...user('a'), weight: 0 }, assistant('b')] }, '"weight" is for what the assistant says, not user'],
    [
      { messages: [user('a'), { role: 'assistant', content: '', tool_calls: [call('{x')] }] },
      'message 2: the arguments of a tool call are no JSON: "{x"',
    ],
    [{ messages: [user('a'), { ...assistant('b'), tool_calls: [{}] }] }, '"tool_calls" holds no {"function"'],
    [{ messages: [user('a'), assistant('b')], tools: {} }, '"tools" is an object, not a list'],
    [{ conversations: [{ from: 'narrator', value: 'a' }] }, 'turn 1: "narrator" is not known; known are human'],
    [{ conversations: [{ from: 'constructor', value: 'a' }] }, 'turn 1: "constructor" is not known'],
    [{ conversations: [{ from: 'human', value: null }] }, 'turn 1: "value" is null, not text'],
    [{ instruction: 'a', input: 7, output: 'b' }, '"input" is the number 7, not text'],
    [{ text: null }, '"text" is null, not text'],
    [{ chosen: 'a', rejected: 'b' }, 'a preference'],
    [[1], 'a list, not a JSON object'],
  ])('%j', (record, problem) => {
    expect(read(record)).toMatchObject({ problem: expect.stringContaining(problem) as string })
  })
})
