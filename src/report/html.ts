/**
 * Text that is HTML already. A class, not a shape: what JSON of a foreign file holds can have any shape, but is never an
 * instance.
 */
export class Html {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  toString(): string {
    return this.#text
  }
}

export type Content = string | number | undefined | Html | readonly Content[]

/** HTML with its values escaped: what models and files say stays text. Lists are joined; undefined is nothing. */
export function html(parts: TemplateStringsArray, ...values: readonly Content[]): Html {
  const rest = values.map((value, index) => `${render(value)}${parts[index + 1] ?? ''}`)
  return new Html(`${parts[0] ?? ''}${rest.join('')}`)
}

function render(content: Content): string {
  if (content === undefined) return ''
  if (content instanceof Html) return content.toString()
  if (Array.isArray(content)) return content.map(render).join('')
  return escape(String(content))
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

/** Control characters, which HTML has no way to write, are replaced. */
function escape(text: string): string {
  return text
    .replaceAll(/\r\n?/g, '\n')
    .replaceAll(/[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, '\u{fffd}')
    .replaceAll(/[&<>"']/g, (character) => ENTITIES[character]!)
}

/** JSON that may stand in a script element: no text in it can end the element, or begin a comment. */
export function scriptJson(value: unknown): Html {
  return new Html(JSON.stringify(value).replaceAll('<', '\\u003c'))
}
