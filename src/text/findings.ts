import { hash } from 'node:crypto'
import type { Sample } from './shapes/index.ts'
import type { Message } from './template/template.ts'

/** What is worth looking at in data that can be used as it is. */
export const findingKinds = {
  cut: 'longer than maxLength, cut at their end',
  nothingLearned: 'left out: no label is left',
  eosNotLearned: 'without an end that is learned: nothing says where an answer ends',
  bosTwice: 'with the token of the beginning twice',
  duplicate: 'the same as an earlier one',
  nearDuplicate: 'the same as an earlier one but for case, blanks and punctuation',
  unfinished: 'whose answer ends in the middle of a sentence, while most others do not',
  emptyAnswer: 'with an empty answer',
  markers: 'whose text spells a special token, which the model reads as that token',
  email: 'with an e-mail address',
  card: 'with a number that may be of a payment card',
  overlap: 'that are in the other file, of training or validation, too',
} as const

export type FindingKind = keyof typeof findingKinds

/** How often something was found, and where first. */
export interface Finding {
  readonly kind: FindingKind
  readonly count: number
  /** Lines or rows of the first ones: `data.jsonl:12`. */
  readonly places: readonly string[]
}

const placesKept = 5

/** Counts findings, and keeps the first places of each. */
export class Findings {
  readonly #found = new Map<FindingKind, { count: number; places: string[] }>()

  add(kind: FindingKind, place: string): void {
    const found = this.#found.get(kind) ?? { count: 0, places: [] }
    this.#found.set(kind, found)
    found.count++
    if (found.places.length < placesKept) found.places.push(place)
  }

  list(): Finding[] {
    const kinds = Object.keys(findingKinds) as FindingKind[]
    return kinds.flatMap((kind) => {
      const found = this.#found.get(kind)
      return found === undefined ? [] : [{ kind, ...found }]
    })
  }
}

/** The texts of a sample: all of them, and those that are answers. */
export interface Texts {
  readonly answers: readonly string[]
  readonly all: readonly string[]
}

export function textsOf(sample: Sample): Texts {
  switch (sample.kind) {
    case 'pair':
      return { answers: [sample.completion], all: [sample.prompt, sample.completion] }
    case 'text':
      return { answers: [], all: [sample.text] }
    case 'chat': {
      const text = ({ content }: Message): string[] => (typeof content === 'string' ? [content] : [])
      const answers = sample.messages.filter((one) => one.role === 'assistant' && !('tool_calls' in one))
      return { answers: answers.flatMap(text), all: sample.messages.flatMap(text) }
    }
  }
}

/** What the texts of a sample show; `special`: the special tokens of the tokenizer, as one expression. */
export function lookAt({ answers, all }: Texts, special: RegExp | undefined): FindingKind[] {
  const found: FindingKind[] = []
  if (answers.some((text) => text.trim() === '')) found.push('emptyAnswer')
  if (special !== undefined && all.some((text) => special.test(text))) found.push('markers')
  if (all.some((text) => text.includes('@') && email.test(text))) found.push('email')
  if (all.some(hasCard)) found.push('card')
  return found
}

const email = /[\w.+-]{1,64}@[A-Za-z\d-]{1,63}(?:\.[A-Za-z\d-]{1,63})*\.[A-Za-z]{2,24}\b/

const digits = /(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])/g

/** Whether a text has a number of the length of payment cards whose last digit is right (Luhn). */
function hasCard(text: string): boolean {
  for (const [found] of text.matchAll(digits)) {
    const number = found.replaceAll(/\D/g, '')
    if (number.length >= 13 && !/^(\d)\1*$/.test(number) && luhn(number)) return true
  }
  return false
}

function luhn(number: string): boolean {
  let sum = 0
  for (let i = 0; i < number.length; i++) {
    const digit = Number(number[number.length - 1 - i])
    const value = i % 2 === 1 ? 2 * digit : digit
    sum += value > 9 ? value - 9 : value
  }
  return sum % 10 === 0
}

/** Whether the last answer is long enough to have sentences, and ends within one: with a letter, a comma or the like. */
export function endsWithin({ answers }: Texts): boolean | undefined {
  const last = answers.at(-1)?.trimEnd()
  if (last === undefined || last.split(/\s+/, longAnswer).length < longAnswer) return undefined
  return /[\p{L}\p{M},;:–—-]$/u.test(last)
}

/** Words from which on an answer is taken to be made of sentences. */
const longAnswer = 12

/** Numbers of 48 bits that are the same where the texts are, exactly and nearly. */
export function fingerprints(sample: Sample, { all }: Texts): { readonly exact: number; readonly near: number } {
  const text = sample.kind === 'chat' ? JSON.stringify([sample.messages, sample.tools]) : all.join('\0')
  const near = text.toLowerCase().replaceAll(/[^\p{L}\p{M}\p{N}]+/gu, ' ')
  return { exact: fingerprint(text), near: fingerprint(near.trim() === '' ? text : near) }
}

function fingerprint(text: string): number {
  return hash('sha1', text, 'buffer').readUIntLE(0, 6)
}

/** Positions of numbers that came before already. */
export function repeated(values: Float64Array): number[] {
  const order = Uint32Array.from(values, (_, i) => i).sort((a, b) => values[a]! - values[b]! || a - b)
  const found: number[] = []
  for (let i = 1; i < order.length; i++) if (values[order[i]!] === values[order[i - 1]!]) found.push(order[i]!)
  return found.sort((a, b) => a - b)
}
