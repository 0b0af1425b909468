import { createContext, Script } from 'node:vm'
import { Template } from '@huggingface/jinja'
import { hashText } from '../../formats/hash.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'
import { dayOf, strftime } from './date.ts'
import { asPython, pythonDate, pythonFunctions } from './python.ts'

/** A message as a template sees it: role, content, and whatever else it has. */
export type Message = { readonly role: string } & { readonly [key: string]: unknown }

/** What is said by whom. */
export interface Conversation {
  readonly messages: readonly Message[]
  /** Functions that may be called, as JSON Schema. */
  readonly tools?: readonly unknown[] | undefined
}

/** Characters from `start` (UTF-16 code units, as of a string) to before `end`. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** A conversation as text, and what of it the marks of a template say is the assistant's. */
export interface Rendered {
  readonly text: string
  readonly generated: readonly Span[]
}

/** Why a conversation cannot be written. */
export class TemplateProblem extends Error {}

/** Far more than any conversation takes: a template is a program of unknown origin. */
const mostMilliseconds = 10_000

/**
 * A chat template in the language of Jinja, as transformers' `apply_chat_template` renders it. `{% generation %}` marks are found again in
 * the text.
 *
 * @throws LowrankError `model`: it is no template.
 */
export class ChatTemplate {
  /** Its text. */
  readonly source: string
  /** Where it is from. */
  readonly origin: string
  /** SHA-256 of its text, as hex. */
  readonly hash: string
  /** Whether it marks what the assistant says. */
  readonly marks: boolean
  /** Whether it may write the day. */
  readonly writesDate: boolean
  /** The day that it writes: `2026-11-27`. */
  readonly day: string
  readonly #template: Template
  readonly #variables: Readonly<Record<string, unknown>>
  #task: () => unknown = () => ''
  #isTimed = false
  readonly #context = createContext({ run: () => this.#task() })

  /** `variables`: what templates ask for by name, `bos_token` and the like; `day`: the one that they write. */
  constructor(
    source: string,
    origin: string,
    variables: Readonly<Record<string, unknown>> = {},
    day: string = dayOf(new Date()),
  ) {
    this.source = source
    this.origin = origin
    this.hash = hashText(source)
    this.writesDate = source.includes('strftime_now')
    this.day = day
    this.#variables = { ...variables, ...pythonFunctions, ...pythonDate((format) => strftime(day, format)) }
    const marked = withMarks(source)
    this.marks = marked !== source
    try {
      this.#template = new Template(marked)
      asPython(this.#template.parsed)
    } catch (cause) {
      throw new LowrankError('model', `${origin}: no chat template (${messageOf(cause)})`, {
        cause,
        hint: 'It is written in the language of Jinja, as the template of a model on the hub. Another one: --chat-template.',
      })
    }
  }

  /**
   * Writes a conversation; `prompt`: with what comes before the next answer.
   *
   * @throws TemplateProblem
   */
  render({ messages, tools }: Conversation, { prompt = false } = {}): Rendered {
    const items = {
      ...this.#variables,
      messages: messages.map(seen),
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: prompt,
    }
    let text: string
    try {
      text = this.#timed(() => this.#template.render(items))
    } catch (error) {
      throw new TemplateProblem(`${this.origin} cannot write it: ${messageOf(error)}`)
    }
    // Text and an object put together, which Python refuses.
    if (text.includes(objectText) && !JSON.stringify(messages).includes(objectText)) {
      throw new TemplateProblem(`${this.origin} cannot write it: an object stands where a text is expected`)
    }
    return this.marks ? withoutMarks(text) : { text, generated: [] }
  }

  /**
   * Does what renders many conversations, with one clock for all of them, since to set one takes longer than to render. Where they take
   * longer than one may, it is done again with a clock for each.
   */
  together<T>(task: () => T): T {
    try {
      return this.#timed(task)
    } catch (error) {
      if ((error as { readonly code?: unknown }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
      return task()
    }
  }

  /** The virtual machine is for its clock: whatever runs within it is ended in time. */
  #timed<T>(task: () => T): T {
    if (this.#isTimed) return task()
    this.#task = task
    this.#isTimed = true
    try {
      return call.runInContext(this.#context, { timeout: mostMilliseconds }) as T
    } finally {
      this.#isTimed = false
    }
  }
}

/**
 * A message as transformers shows it to a template: without keys that hold nothing, and with what was thought by all names that templates
 * have for it.
 */
function seen(message: Message): Message {
  const { role, ...rest } = message
  const held = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null))
  const thought = held['reasoning_content'] ?? held['thinking'] ?? held['reasoning']
  return thought === undefined ? { role, ...held } : { role, thinking: thought, ...held, reasoning_content: thought }
}

const objectText = '[object Map]'

const call = new Script('run()')

/** Two code points that are no characters, and that no text has. */
const [opens, closes] = ['\ufdd0', '\ufdd1']

/** `{% generation %}` and its end, with their signs of whitespace control. */
const tag = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g

/** The template with a sign in place of each `{% generation %}` tag; blanks around it are treated as around any tag. */
function withMarks(source: string): string {
  return source.replace(
    tag,
    (_, left: string, end: string | undefined, right: string) =>
      `{%${left} if true %}{{ '${end === undefined ? opens : closes}' }}{% endif ${right}%}`,
  )
}

function withoutMarks(marked: string): Rendered {
  const generated: Span[] = []
  let text = ''
  let start = 0
  for (const part of marked.split(/([\ufdd0\ufdd1])/)) {
    if (part === opens) start = text.length
    else if (part === closes) generated.push({ start, end: text.length })
    else text += part
  }
  return { text, generated }
}
