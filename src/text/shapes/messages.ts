import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { unicodeProblem } from '../../util/unicode.ts'
import type { Message } from '../template/template.ts'
import { type ChatSample, isProblem, keysOf, kindOf, type Problem, type Shape } from './sample.ts'

const roles = ['system', 'developer', 'user', 'assistant', 'tool']

/** Chats as OpenAI's fine-tuning has them: `{"messages": [{"role", "content", "weight"?, "tool_calls"?}], "tools"?}`. */
export const messages: Shape = {
  name: 'messages',
  what: 'chats ("messages", as OpenAI has them)',
  keys: ['messages'],
  uses: ['messages', 'tools'],
  read(record) {
    const chat = readChat(record)
    return isProblem(chat) ? chat : chatOf(chat.messages, chat)
  },
}

/** A conversation, whoever speaks last in it. */
export function readChat(record: JsonObject): Omit<ChatSample, 'kind'> | Problem {
  const list = record['messages']
  if (!Array.isArray(list))
    return {
      problem: `"messages" is ${list === undefined ? `missing; found ${keysOf(record)}` : `${kindOf(list)}, not a list`}`,
    }
  const messages: Message[] = []
  const unlearned = new Set<number>()
  for (const [index, one] of (list as unknown[]).entries()) {
    const message = readMessage(one)
    if (isProblem(message)) return { problem: `message ${index + 1}: ${message.problem}` }
    if (message.weight === 0) unlearned.add(index)
    messages.push(message.message)
  }
  const tools = record['tools'] ?? undefined
  if (tools !== undefined && !Array.isArray(tools)) return { problem: `"tools" is ${kindOf(tools)}, not a list` }
  return { messages, tools: (tools as unknown[] | undefined)?.length === 0 ? undefined : tools, unlearned }
}

/** A chat, if there is something to learn of it. */
export function chatOf(
  found: readonly Message[],
  { tools, unlearned }: Pick<ChatSample, 'tools' | 'unlearned'> = {},
): ChatSample | Problem {
  if (found.length === 0) return { problem: 'the conversation is empty' }
  if (!found.some(({ role }) => role === 'assistant')) return { problem: 'the assistant says nothing' }
  return { kind: 'chat', messages: found, tools, ...(unlearned === undefined ? {} : { unlearned }) }
}

function readMessage(value: unknown): { readonly message: Message; readonly weight: number } | Problem {
  if (!isJsonObject(value)) return { problem: `${kindOf(value)}, not an object with "role" and "content"` }
  const { role, content, weight = 1, tool_calls: calls, ...rest } = value
  if (role === undefined) return { problem: `"role" is missing; found ${keysOf(value)}` }
  if (typeof role !== 'string' || !roles.includes(role)) {
    return { problem: `the role ${JSON.stringify(role)} is not one of ${roles.join(', ')}` }
  }
  if (weight !== 0 && weight !== 1) return { problem: `"weight" is ${JSON.stringify(weight)}, not 0 or 1` }
  if (weight === 0 && role !== 'assistant') return { problem: `"weight" is for what the assistant says, not ${role}` }
  const toolCalls = calls === undefined || calls === null ? undefined : readCalls(calls, role)
  if (isProblem(toolCalls)) return toolCalls
  const text = readContent(content, toolCalls !== undefined)
  if (isProblem(text)) return text
  const message: Message = {
    role,
    ...(text === undefined ? {} : { content: text }),
    ...(toolCalls === undefined ? {} : { tool_calls: toolCalls }),
    ...rest,
  }
  return { message, weight }
}

/** A text, or text parts, which are put together. Null where the message is calls of tools instead. */
function readContent(content: unknown, hasCalls: boolean): string | null | undefined | Problem {
  if ((content === null || content === undefined) && hasCalls) return content
  if (content === undefined) return { problem: '"content" is missing' }
  const parts: unknown[] = Array.isArray(content) ? content : [content]
  let whole = ''
  for (const part of parts) {
    const text = isJsonObject(part) && part['type'] === 'text' ? part['text'] : part
    if (typeof text !== 'string') {
      const what =
        isJsonObject(part) && typeof part['type'] === 'string'
          ? `a part of type ${JSON.stringify(part['type'])}`
          : kindOf(text)
      return { problem: `"content" ${Array.isArray(content) ? 'holds' : 'is'} ${what}, not text` }
    }
    const problem = unicodeProblem(text)
    if (problem !== undefined) return { problem: `"content" is ${problem}` }
    whole += text
  }
  return whole
}

/** Calls of tools: OpenAI has their arguments as JSON within JSON, templates want the object. */
function readCalls(calls: unknown, role: string): readonly JsonObject[] | Problem {
  if (!Array.isArray(calls) || calls.length === 0)
    return { problem: `"tool_calls" is ${kindOf(calls)}, not a list of calls` }
  if (role !== 'assistant') return { problem: `"tool_calls" is for what the assistant says, not ${role}` }
  const found: JsonObject[] = []
  for (const call of calls as unknown[]) {
    const named = isJsonObject(call) ? call['function'] : undefined
    if (!isJsonObject(call) || !isJsonObject(named) || typeof named['name'] !== 'string') {
      return { problem: '"tool_calls" holds no {"function": {"name", "arguments"}}' }
    }
    const args = argumentsOf(named['arguments'])
    if (isProblem(args)) return args
    found.push({ ...call, function: { ...named, arguments: args } })
  }
  return found
}

function argumentsOf(value: unknown): unknown {
  if (typeof value !== 'string') return value ?? {}
  try {
    return JSON.parse(value === '' ? '{}' : value)
  } catch {
    return { problem: `the arguments of a tool call are no JSON: ${JSON.stringify(value.slice(0, 60))}` }
  }
}
