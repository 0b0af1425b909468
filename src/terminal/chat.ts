import { createInterface } from 'node:readline/promises'
import type { Chat } from '../generate/chat.ts'
import { LowrankError, messageOf } from '../util/errors.ts'
import { columns } from './format.ts'
import { type Input, widthOf, type SafeOutput } from './output.ts'

/** What a conversation in a terminal needs. */
export interface ChatTerminal {
  readonly stdin: Input
  readonly stdout: SafeOutput
  readonly stderr: SafeOutput
  readonly signal: AbortSignal
}

/** What commands do that are about more than the conversation. */
export interface ChatActions {
  /** Names of the adapters that are loaded. */
  adapters(): readonly string[]
  /** Loads an adapter from a folder; -> its name. */
  load(folder: string): Promise<string>
  /** Writes the conversation as a line of a training file. */
  save(path: string): Promise<void>
}

const help = [
  '/adapter [NAME|DIR]  answer with this adapter, which is loaded if need be; alone: list them',
  '/base                answer with the base model',
  '/compare             the answers of base and adapters to what was said last, side by side',
  '/system [TEXT]       what the model is told before anything is said; alone: nothing',
  '/reset               forget what was said',
  '/save FILE           add the conversation to a JSONL file, as "messages"',
  '/exit                end (as Ctrl-D does); Ctrl-C ends an answer',
]

/** Talks with a model, line by line, until the input ends. */
export async function talk(chat: Chat, actions: ChatActions, terminal: ChatTerminal): Promise<void> {
  const { stdin, stdout, stderr, signal } = terminal
  const prompts = stdin.isTTY === true && stdout.isTTY === true
  const lines = createInterface({
    input: stdin,
    ...(prompts && { output: stdout.raw as NodeJS.WritableStream, terminal: true }),
  })
  let answering: AbortController | undefined
  lines.on('SIGINT', () => {
    if (answering === undefined) lines.close()
    else answering.abort()
  })
  const close = (): void => {
    answering?.abort()
    lines.close()
  }
  signal.addEventListener('abort', close, { once: true })
  const ask = (): void => {
    if (!prompts) return
    lines.setPrompt(`${chat.adapter === null ? '' : `[${chat.adapter}] `}> `)
    lines.prompt()
  }
  try {
    ask()
    for await (const line of lines) {
      const said = line.trim()
      if (said === '/exit') break
      if (said !== '') {
        answering = new AbortController()
        try {
          if (said.startsWith('/')) await command(said, { chat, actions, stdout, stderr, signal: answering.signal })
          else await answer(chat, said, { stdout, signal: answering.signal })
        } catch (error) {
          if (!(error instanceof LowrankError)) throw error
          stderr.write(`error: ${messageOf(error)}\n${error.hint === undefined ? '' : `hint: ${error.hint}\n`}`)
        } finally {
          answering = undefined
        }
      }
      if (signal.aborted) break
      ask()
    }
    if (prompts) stdout.write('\n')
  } finally {
    signal.removeEventListener('abort', close)
    lines.close()
  }
}

async function answer(chat: Chat, said: string, { stdout, signal }: Pick<ChatTerminal, 'stdout' | 'signal'>) {
  for await (const piece of chat.say(said, { signal })) stdout.write(piece)
  stdout.write('\n')
}

interface CommandContext extends Pick<ChatTerminal, 'stdout' | 'stderr' | 'signal'> {
  readonly chat: Chat
  readonly actions: ChatActions
}

async function command(said: string, { chat, actions, stdout, stderr, signal }: CommandContext): Promise<void> {
  const [name = '', ...words] = said.split(/\s+/)
  const rest = said.slice(name.length).trim()
  switch (name) {
    case '/adapter': {
      const known = actions.adapters()
      if (words.length === 0) return void stderr.write(`adapters: ${known.join(', ') || 'none'}\n`)
      chat.adapter = known.includes(rest) ? rest : await actions.load(rest)
      return
    }
    case '/base':
      chat.adapter = null
      return
    case '/compare': {
      if (chat.lastSaid === undefined) return void stderr.write('nothing was said yet\n')
      const shown = [null, ...actions.adapters()]
      const answers = await chat.compare(shown, { signal })
      const titles = shown.map((one) => one ?? 'base')
      stdout.write(`${columns(titles, answers, widthOf(stdout)).join('\n')}\n`)
      return
    }
    case '/system':
      chat.system = rest === '' ? undefined : rest
      return
    case '/reset':
      chat.reset()
      return
    case '/save':
      if (rest === '') return void stderr.write('/save needs the name of a file\n')
      await actions.save(rest)
      stderr.write(`saved in ${rest}\n`)
      return
    default:
      stderr.write(`${help.join('\n')}\n`)
  }
}
