import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { LowrankError } from '../../src/util/errors.ts'
import { ChatTemplate, type Conversation, type Rendered, TemplateProblem } from '../../src/text/template/template.ts'

/** A text, or why transformers refuses the conversation. */
type Expected = string | { readonly error: string }

interface Row {
  readonly text: Expected
  /** What is added to the text as the beginning of the next answer, or the whole where that is something else. */
  readonly prompt?: string
  readonly wholePrompt?: Expected
  /** Where `{% generation %}` marks lie, in code points. */
  readonly marks?: readonly (readonly [number, number])[]
}

const folder = join(import.meta.dirname, 'templates')
const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
const conversations = JSON.parse(read('conversations.json')) as (Conversation & { readonly name: string })[]
const golden = JSON.parse(read('golden.json')) as Record<string, Row[]>
const special = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>', pad_token: '<pad>' }

function render(template: ChatTemplate, conversation: Conversation, prompt: boolean): Rendered | 'refused' {
  try {
    return template.render(conversation, { prompt })
  } catch (error) {
    if (error instanceof TemplateProblem) return 'refused'
    throw error
  }
}

/** The day on which they were made. */
const day = '2025-07-02'

describe.each(Object.entries(golden))('%s', (name, rows) => {
  const template = new ChatTemplate(read(`${name}.jinja`), name, special, day)

  test.each(rows.map((row, i) => ({ ...row, ...conversations[i]! })))('$name', (row) => {
    const expected = (value: Expected): string => (typeof value === 'string' ? value : 'refused')
    const found = render(template, row, false)
    expect(found === 'refused' ? found : found.text).toBe(expected(row.text))
    const prompt = render(template, row, true)
    const whole = row.wholePrompt ?? `${expected(row.text)}${row.prompt}`
    expect(prompt === 'refused' ? prompt : prompt.text).toBe(expected(whole))
    if (row.marks === undefined || found === 'refused') return
    const characters = Array.from(found.text)
    expect(found.generated.map(({ start, end }) => found.text.slice(start, end))).toEqual(
      row.marks.map(([start, end]) => characters.slice(start, end).join('')),
    )
  })
})

describe('expressions', () => {
  const { variables, rows } = JSON.parse(read('expressions.json')) as {
    readonly variables: Record<string, unknown>
    readonly rows: readonly (readonly [string, Expected])[]
  }
  /** What is not known here, as filters that no template of a model has; refused, and never something else. */
  const refused: string[] = []

  test.each(rows)('%s', (source, expected) => {
    let found: string
    try {
      found = new ChatTemplate(source, 'expression', variables).render({ messages: [] }).text
    } catch (error) {
      expect(error instanceof TemplateProblem || error instanceof LowrankError, String(error)).toBe(true)
      if (typeof expected === 'string') refused.push(source)
      return
    }
    expect(found).toBe(expected)
  })

  test('few are refused', () => expect(refused.length).toBeLessThan(rows.length / 5))
})
