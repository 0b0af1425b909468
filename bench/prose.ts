/**
 * Records of English-like text in any amount: prompts with completions, or chats of several turns. Words are drawn as they are used, few of
 * them often and many seldom (about one over its rank), rare ones with prefixes and endings, names, numbers, dates and code among them: a
 * tokenizer that remembers words meets new ones all the time.
 */
import { type Stream, stream, uniform } from '../src/util/random.ts'

export type ProseKind = 'pairs' | 'chats'

/** The lines of a JSONL file. Line i depends on (kind, seed, i) only. */
export function* proseLines(kind: ProseKind, seed: number): Generator<string> {
  for (let line = 0; ; line++) {
    const writer = new Writer(stream(seed, kind, line))
    yield JSON.stringify(kind === 'pairs' ? pair(writer) : chat(writer))
  }
}

function pair(writer: Writer): unknown {
  const prompt = `${writer.question()}\n\n${writer.paragraphs(1 + writer.below(3))}\n\nAnswer:`
  return { prompt, completion: ` ${writer.paragraphs(1)}` }
}

function chat(writer: Writer): unknown {
  const messages = [{ role: 'system', content: writer.sentence() }]
  for (let turns = 1 + writer.below(3); turns > 0; turns--) {
    messages.push({ role: 'user', content: `${writer.paragraphs(1)} ${writer.question()}` })
    messages.push({ role: 'assistant', content: writer.paragraphs(1 + writer.below(2)) })
  }
  return { messages }
}

/** Draws of a record; a record longer than that draws them again from the beginning. */
const drawn = 1024

class Writer {
  readonly #draws: Float64Array
  #at = 0

  constructor(source: Stream) {
    this.#draws = uniform(source, drawn)
  }

  #draw(): number {
    // Others each time it begins again.
    const turn = Math.floor(this.#at / drawn)
    const found = this.#draws[this.#at++ % drawn]! + turn * 0.381966
    return found - Math.floor(found)
  }

  below(n: number): number {
    return Math.floor(this.#draw() * n)
  }

  #of(list: readonly string[]): string {
    return list[this.below(list.length)]!
  }

  paragraphs(count: number): string {
    const one = (): string => Array.from({ length: 2 + this.below(5) }, () => this.sentence()).join(' ')
    return Array.from({ length: count }, one).join('\n\n')
  }

  question(): string {
    return `${this.#of(['How', 'Why', 'Where', 'When', 'What'])} ${this.#words(4 + this.below(8))}?`
  }

  sentence(): string {
    const words = this.#words(6 + this.below(18))
    const end = this.#draw() < 0.06 ? this.#of(['!', '?', ':', '...']) : '.'
    return words[0]!.toUpperCase() + words.slice(1) + end
  }

  #words(count: number): string {
    let text = this.#word()
    for (let i = 1; i < count; i++)
      text += (this.#draw() < 0.08 ? this.#of([', ', '; ', ' - ', ', ']) : ' ') + this.#word()
    return text
  }

  #word(): string {
    const kind = this.#draw()
    if (kind < 0.45) return common[Math.floor(common.length ** this.#draw()) - 1]!
    if (kind < 0.9) return stems[Math.floor(stems.length ** (0.2 + 0.8 * this.#draw())) - 1]! + this.#of(endings)
    if (kind < 0.94) return this.#of(prefixes) + this.#of(stems) + this.#of(endings)
    if (kind < 0.97) return this.#name()
    return this.#number()
  }

  #name(): string {
    const text = this.#of(syllables) + this.#of(syllables) + (this.#draw() < 0.4 ? this.#of(syllables) : '')
    return text[0]!.toUpperCase() + text.slice(1) + (this.#draw() < 0.15 ? "'s" : '')
  }

  #number(): string {
    const kind = this.below(5)
    if (kind === 0) return `${1900 + this.below(130)}-${String(1 + this.below(12)).padStart(2, '0')}`
    if (kind === 1) return `${this.below(10_000)}.${this.below(100)}`
    if (kind === 2) return `$${this.below(900)},${String(this.below(1000)).padStart(3, '0')}`
    if (kind === 3) return `"${this.#of(stems)}_${this.#of(stems)}(${this.below(64)})"`
    return String(this.below(10 ** (1 + this.below(5))))
  }
}

/** From the most frequent on. */
const common = (
  'the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were ' +
  'all her she there would their we him been has when who will no more if out so up said what its about than into them can only ' +
  'other time new some could these two may first then do any like my now over such our man me even most made after also did many ' +
  "off before must well back through years much where your way down should because long each just state those people too don't it's"
).split(' ')

const stems = (
  'work report market system record model letter water power school group order point paper field light question number table answer ' +
  'garden window doctor river office season kitchen engine bridge forest winter summer village castle island harbour market planet ' +
  'train carry build reach print collect measure compare follow observe publish invent repair travel wander gather scatter whisper ' +
  'shelter govern consider develop explain imagine remember deliver protect connect reflect attend extend intend respond correspond ' +
  'account amount balance budget capital credit invoice payment profit receipt refund salary customer product package parcel ticket ' +
  'support complaint request password network server browser keyboard monitor printer battery charger adapter cable memory storage ' +
  'program function compile buffer thread process kernel socket packet vector matrix tensor gradient sample weight layer token batch ' +
  'animal flower mountain desert ocean valley meadow orchard harvest pepper ginger butter cheese apple cherry lemon honey pumpkin ' +
  'copper silver mercury carbon oxygen nitrogen hydrogen mineral crystal granite marble timber cotton leather velvet linen glass ' +
  'muscle nerve tissue organ vessel kidney liver stomach shoulder ankle finger symptom fever infect vaccine patient surgeon ' +
  'theorem integer fraction geometry algebra number triangle circle sphere surface volume angle distance velocity momentum energy ' +
  'century empire kingdom republic parliament senate minister election treaty border colony army soldier general captain admiral ' +
  'novel poem chapter author editor theatre actor painter sculptor museum gallery orchestra melody rhythm violin trumpet drum choir ' +
  'planet comet galaxy telescope satellite orbit rocket gravity horizon climate thunder lightning blizzard drought flood glacier'
).split(' ')

const usual = ['', '', '', '', '', 's', 's', 'ed', 'ing']
const endings = [...usual, ...usual, ...usual, 'er', 'ly', 'ment', 'less', 'ness', 'able', 'ist']
const prefixes = [
  'un',
  're',
  'over',
  'under',
  'inter',
  'pre',
  'mis',
  'sub',
  'non-',
  'semi',
  'counter',
  'electro',
  'micro',
]
const syllables =
  'al ba ber can dor el fen gar hol in jo kar lin mar nor ol pel quin ros sa ton ul vic wes yor za'.split(' ')
