import { namedTemplates } from '../../text/template/named.ts'
import { ChatTemplate, type Message, TemplateProblem } from '../../text/template/template.ts'

/** A way to write conversations that is known in the language of Go's templates, which Ollama has instead of Jinja. */
interface KnownTemplate {
  /** The same in Jinja: a model's template is this one where it writes the same. */
  readonly jinja: string
  /** Without BOS, which Ollama puts before a text by what the GGUF file says. `EOS` stands for the end-of-sequence token. */
  readonly go: string
  /** What ends a turn. */
  readonly stops: readonly string[]
}

/** Each message with its index; whether it is the last. */
const each = '{{- range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}'
const ends = '{{ end }}'
/** The end of an answer is left open where it is to be continued. */
const unlessOpen = '{{ if not (and $last (eq .Role "assistant")) }}'
const beforeAnswer = '{{ if and $last (ne .Role "assistant") }}'
/** What the system says stands in the first turn of the user. */
const systemWithin = '{{ if and (eq $i 1) $.System }}{{ $.System }}\n\n{{ end }}'

/** Every turn between the same marks. */
function turns(open: string, close: string, prompt: string): string {
  return `${each}${open}{{ .Content }}${unlessOpen}${close}${ends}${beforeAnswer}${prompt}${ends}${ends}`
}

const named = (name: string): string => namedTemplates[name] ?? ''

export const knownTemplates: Readonly<Record<string, KnownTemplate>> = {
  chatml: {
    jinja: named('chatml'),
    go: turns('<|im_start|>{{ .Role }}\n', '<|im_end|>\n', '<|im_start|>assistant\n'),
    stops: ['<|im_end|>'],
  },
  'llama-3': {
    jinja: named('llama-3'),
    go: turns(
      '<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n',
      '<|eot_id|>',
      '<|start_header_id|>assistant<|end_header_id|>\n\n',
    ),
    stops: ['<|eot_id|>'],
  },
  gemma: {
    jinja: named('gemma'),
    go:
      `${each}{{ if eq .Role "user" }}<start_of_turn>user\n${systemWithin}{{ .Content }}<end_of_turn>\n` +
      `{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}{{ if not $last }}<end_of_turn>\n${ends}${ends}` +
      `${beforeAnswer}<start_of_turn>model\n${ends}${ends}`,
    stops: ['<end_of_turn>'],
  },
  mistral: {
    jinja: named('mistral'),
    go:
      `${each}{{ if eq .Role "user" }}[INST] ${systemWithin}{{ .Content }} [/INST]` +
      `{{ else if eq .Role "assistant" }} {{ .Content }}{{ if not $last }}EOS${ends}${ends}${ends}`,
    stops: [],
  },
  zephyr: {
    jinja: named('zephyr'),
    go: turns('<|{{ .Role }}|>\n', 'EOS\n', '<|assistant|>\n'),
    stops: [],
  },
  'phi-3': {
    jinja: `{%- for message in messages %}
    {{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}`,
    go: turns('<|{{ .Role }}|>\n', '<|end|>\n', '<|assistant|>\n'),
    stops: ['<|end|>'],
  },
  alpaca: {
    jinja: named('alpaca'),
    go:
      `${each}{{ if eq .Role "system" }}{{ .Content }}\n\n` +
      `{{ else if eq .Role "user" }}### Instruction:\n{{ .Content }}\n\n### Response:\n` +
      `{{ else }}{{ .Content }}{{ if not $last }}EOS\n\n${ends}${ends}${ends}`,
    stops: [],
  },
}

/** What a model's template was recognised as. */
export interface Recognised {
  readonly name: string
  readonly go: string
  readonly stops: readonly string[]
  /** What the template has the system say where a conversation does not. */
  readonly system: string | undefined
  /** Whether the template itself writes BOS. */
  readonly writesBos: boolean
}

const [user, answer, other, said] = ['What is this?', 'It is a test.', 'And that?', 'You are brief.'] as const
const one: readonly Message[] = [{ role: 'user', content: user }]
const several: readonly Message[] = [...one, { role: 'assistant', content: answer }, { role: 'user', content: other }]
const withSystem = (content: string, messages: readonly Message[]): readonly Message[] => [
  { role: 'system', content },
  ...messages,
]

/**
 * Which of the known templates one of a model is: the one that writes the same of conversations with and without a system prompt, of one
 * turn and of several. A system prompt of its own, where none is given, is told apart. Undefined where none does: Jinja is a language in
 * which anything can be written.
 */
export function recognise(source: string, roles: Readonly<Record<string, string>>): Recognised | undefined {
  const { bos_token: bos = '', eos_token: eos = '' } = roles
  // It becomes a part of a program.
  if (eos.includes('{{')) return undefined
  const own = new ChatTemplate(source, 'chat template', roles)
  for (const [name, known] of Object.entries(knownTemplates)) {
    const reference = new ChatTemplate(known.jinja, name, roles)
    const bare = known.jinja.includes('bos_token') ? bos : ''
    // A template may write BOS where the other does not.
    for (const extra of new Set(['', bos])) {
      const texts = (messages: readonly Message[], of: 'own' | 'known'): string | undefined =>
        without(of === 'own' ? extra : bare, written(of === 'own' ? own : reference, messages))
      const system = systemOf(texts)
      if (system === undefined) continue
      const [found] = system
      return {
        name,
        go: known.go.replaceAll('EOS', eos),
        stops: known.stops,
        system: found,
        writesBos: extra !== '',
      }
    }
  }
  return undefined
}

type Texts = (messages: readonly Message[], of: 'own' | 'known') => string | undefined

/** Whether two templates write the same: undefined where they do not, else what the first has the system say where nobody does. */
function systemOf(texts: Texts): readonly [system: string | undefined] | undefined {
  const same = (messages: readonly Message[], spoken = messages): boolean => {
    const text = texts(messages, 'own')
    return text !== undefined && text === texts(spoken, 'known')
  }
  // A template may know of no system at all.
  const instructed = withSystem(said, several)
  if (texts(instructed, 'own') !== undefined && !same(instructed)) return undefined
  if (same(one) && same(several)) return [undefined]
  const mark = '\ufdd2'
  const [before, after] = texts(withSystem(mark, one), 'known')?.split(mark) ?? []
  const text = texts(one, 'own')
  if (before === undefined || after === undefined || !text?.startsWith(before) || !text.endsWith(after))
    return undefined
  const system = text.slice(before.length, text.length - after.length)
  return same(one, withSystem(system, one)) && same(several, withSystem(system, several)) ? [system] : undefined
}

/** What is left of a text behind its beginning; undefined where it has another. */
function without(beginning: string, text: string | undefined): string | undefined {
  return text?.startsWith(beginning) ? text.slice(beginning.length) : undefined
}

function written(template: ChatTemplate, messages: readonly Message[]): string | undefined {
  try {
    return template.render({ messages }, { prompt: true }).text
  } catch (error) {
    if (error instanceof TemplateProblem) return undefined
    throw error
  }
}
