import { isJsonObject } from '../formats/json.ts'
import { LowrankError } from '../util/errors.ts'
import { type DataSource, placeText, readRecords } from './readers/index.ts'
import { readChat } from './shapes/messages.ts'
import { isProblem, kindOf, type Problem, textOf } from './shapes/sample.ts'
import type { Conversation } from './template/template.ts'

/** What is continued: a text as it is, or a conversation, which the model's template writes. */
export type Prompt = string | Conversation

/**
 * The prompts of files: `{"prompt"}`, or `{"messages"}`, of which an answer at the end is left out. So the files of training will do.
 *
 * @throws LowrankError `data`: a record is neither, and where.
 */
export async function readPrompts(sources: readonly DataSource[], cancelled: () => boolean): Promise<Prompt[]> {
  const prompts: Prompt[] = []
  for (const { path } of sources) {
    for await (const entry of readRecords(path, { cancelled })) {
      const found = 'error' in entry ? { problem: entry.error } : promptOf(entry.value)
      if (isProblem(found))
        throw new LowrankError('data', `${placeText(entry.place)}: ${found.problem}`, { hint: forms })
      prompts.push(found)
    }
  }
  return prompts
}

const forms = 'A record is {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}.'

/** What is to be continued of a record, or of what a caller gives. */
export function promptOf(value: unknown): Prompt | Problem {
  if (!isJsonObject(value)) return { problem: `${kindOf(value)}, not an object with "prompt" or "messages"` }
  if (value['messages'] === undefined) return textOf(value, 'prompt')
  const chat = readChat(value)
  if (isProblem(chat)) return chat
  const { messages, tools } = chat
  const asked = messages.at(-1)?.role === 'assistant' ? messages.slice(0, -1) : messages
  if (asked.length === 0) return { problem: '"messages" has nothing to answer' }
  return { messages: asked, tools }
}
