import { asChat } from './encode.ts'
import type { Problem, Sample } from './shapes/index.ts'
import type { ChatSample, PairSample } from './shapes/sample.ts'

/** A sample as a question: what is expected, and the same sample with other answers. */
export interface Asked {
  /** The completion, or the last of what the assistant says. */
  readonly expected: string
  withAnswer(answer: string): Sample
}

/** What a sample asks; or why it asks nothing. */
export function askedOf(sample: Sample): Asked | Problem {
  switch (sample.kind) {
    case 'pair':
      return { expected: sample.completion, withAnswer: (completion) => ({ ...sample, completion }) }
    case 'chat':
      return askedOfChat(sample)
    case 'text':
      return { problem: 'a text has no prompt, so there is no answer to measure' }
  }
}

function askedOfChat(sample: ChatSample): Asked | Problem {
  const { messages, unlearned } = sample
  const last = messages.findLastIndex(({ role }, i) => role === 'assistant' && unlearned?.has(i) !== true)
  const content = messages[last]?.['content']
  if (typeof content !== 'string' || content === '') return { problem: 'the last answer of the assistant is no text' }
  return {
    expected: content,
    // What follows the answer is no part of the question.
    withAnswer: (answer) => ({
      ...sample,
      messages: [...messages.slice(0, last), { ...messages[last], role: 'assistant', content: answer }],
    }),
  }
}

/**
 * A sample with others before it, as examples of what is wanted: in a conversation as earlier turns, which are read and not learned, behind
 * what the system says; of texts the prompt begins with theirs, with an empty line between.
 */
export function withShots(sample: Sample, shots: readonly Sample[]): Sample | Problem {
  if (sample.kind === 'text' || shots.some(({ kind }) => kind === 'text')) {
    return { problem: 'examples go before a prompt, and a text has none' }
  }
  if (sample.kind === 'chat')
    return withTurns(
      sample,
      shots.map((shot) => (shot.kind === 'pair' ? asChat(shot) : shot) as ChatSample),
    )
  if (shots.some(({ kind }) => kind === 'chat'))
    return { problem: 'conversations are no examples for prompts and completions' }
  const before = (shots as readonly PairSample[]).map(({ prompt, completion }) => `${prompt}${completion}`.trimEnd())
  return { ...sample, prompt: [...before, sample.prompt].join('\n\n') }
}

function withTurns(sample: ChatSample, shots: readonly ChatSample[]): ChatSample {
  const isSystem = ({ role }: ChatSample['messages'][number]): boolean => role === 'system' || role === 'developer'
  const own = sample.messages
  const first = own.findIndex((message) => !isSystem(message))
  const turns = shots.flatMap(({ messages }) => messages.filter((message) => !isSystem(message)))
  const unlearned = new Set<number>()
  for (let i = 0; i < turns.length; i++) unlearned.add(first + i)
  for (const index of sample.unlearned ?? []) unlearned.add(index < first ? index : index + turns.length)
  return { ...sample, messages: [...own.slice(0, first), ...turns, ...own.slice(first)], unlearned }
}
