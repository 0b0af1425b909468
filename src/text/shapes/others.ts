import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { unicodeProblem } from '../../util/unicode.ts'
import type { Message } from '../template/template.ts'
import { chatOf } from './messages.ts'
import { isProblem, keysOf, kindOf, type Shape, textOf } from './sample.ts'

export const pairs: Shape = {
  name: 'pairs',
  what: 'prompts and completions',
  keys: ['prompt', 'completion'],
  uses: ['prompt', 'completion'],
  read(record) {
    const [prompt, completion] = [textOf(record, 'prompt'), textOf(record, 'completion')]
    if (isProblem(prompt)) return prompt
    return isProblem(completion) ? completion : { kind: 'pair', prompt, completion }
  },
}

/** A text of which every token is a label. */
export const text: Shape = {
  name: 'text',
  what: 'plain texts ("text"), learned whole',
  keys: ['text'],
  uses: ['text'],
  read(record) {
    const found = textOf(record, 'text')
    return isProblem(found) ? found : { kind: 'text', text: found }
  },
}

/** Stanford Alpaca's `instruction`, `input` (may be missing or empty) and `output`, a question and its answer; `system` as some have it. */
export const alpaca: Shape = {
  name: 'alpaca',
  what: 'instructions with their outputs (Alpaca)',
  keys: ['instruction', 'output'],
  uses: ['instruction', 'input', 'output', 'system'],
  read(record) {
    const optional = (key: string): ReturnType<typeof textOf> =>
      record[key] === undefined || record[key] === null ? '' : textOf(record, key)
    const found = [textOf(record, 'instruction'), optional('input'), textOf(record, 'output'), optional('system')]
    const problem = found.find((one) => isProblem(one))
    if (problem !== undefined) return problem
    const [instruction, input, output, system] = found as [string, string, string, string]
    const question = [instruction, input].filter((part) => part !== '').join('\n\n')
    return chatOf([
      ...(system === '' ? [] : [{ role: 'system', content: system }]),
      { role: 'user', content: question },
      { role: 'assistant', content: output },
    ])
  },
}

/** Names of the speakers in ShareGPT files of all kinds. */
const aliases: Readonly<Record<string, string>> = {
  human: 'user',
  user: 'user',
  prompter: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  chatgpt: 'assistant',
  bing: 'assistant',
  bard: 'assistant',
  model: 'assistant',
  bot: 'assistant',
  system: 'system',
  tool: 'tool',
  function: 'tool',
  function_response: 'tool',
  observation: 'tool',
}

/** ShareGPT's `conversations` of `{"from", "value"}`; those of `{"role", "content"}` too. */
export const conversations: Shape = {
  name: 'conversations',
  what: 'conversations (ShareGPT)',
  keys: ['conversations', 'conversation'],
  uses: ['conversations', 'conversation', 'system', 'tools'],
  read(record) {
    const list = record['conversations'] ?? record['conversation']
    if (!Array.isArray(list)) {
      const found = list === undefined ? `missing; found ${keysOf(record)}` : `${kindOf(list)}, not a list`
      return { problem: `"conversations" is ${found}` }
    }
    const found: Message[] = []
    const unlearned = new Set<number>()
    const { system } = record
    if (typeof system === 'string' && system !== '') found.push({ role: 'system', content: system })
    for (const [index, turn] of (list as unknown[]).entries()) {
      const where = `turn ${index + 1}`
      if (!isJsonObject(turn)) return { problem: `${where}: ${kindOf(turn)}, not an object with "from" and "value"` }
      const { from = turn['role'], value = turn['content'], weight = 1 } = turn
      const role =
        typeof from === 'string' && Object.hasOwn(aliases, from.toLowerCase()) ? aliases[from.toLowerCase()] : undefined
      if (role === undefined) {
        const who =
          from === undefined
            ? `nobody says it ("from" is missing; found ${keysOf(turn)})`
            : `${JSON.stringify(from)} is not known`
        return { problem: `${where}: ${who}; known are ${Object.keys(aliases).join(', ')}` }
      }
      if (typeof value !== 'string') return { problem: `${where}: "value" is ${kindOf(value)}, not text` }
      const problem = unicodeProblem(value)
      if (problem !== undefined) return { problem: `${where}: "value" is ${problem}` }
      if (weight === 0) unlearned.add(found.length)
      found.push({ role, content: value })
    }
    return chatOf(found, { unlearned, tools: toolsOf(record) })
  },
}

/** Some files have tools as JSON within JSON. */
function toolsOf({ tools }: JsonObject): readonly unknown[] | undefined {
  let found: unknown = tools
  if (typeof tools === 'string') {
    try {
      found = JSON.parse(tools)
    } catch {
      return undefined
    }
  }
  return Array.isArray(found) && found.length > 0 ? found : undefined
}

export const preference: Shape = {
  name: 'preference',
  what: 'preferences ("chosen" and "rejected")',
  keys: ['chosen', 'rejected'],
  uses: ['chosen', 'rejected'],
  read: () => ({
    problem: 'a preference ("chosen", "rejected"), from which is not learned yet',
    hint: 'Learn the preferred answers: map the columns (columns: { completion: chosen }), or write "chosen" as "messages".',
  }),
}
