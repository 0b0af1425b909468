// @ts-check
// Tokens of parts of texts, remembered: see cuts.ts for where texts may be cut.

/** @typedef {{ readonly start: number, readonly end: number }} Span Places as UTF-16 code units. */
/** @typedef {{ readonly text: string, readonly spans: readonly Span[] }} Marked */
/** @typedef {(parts: readonly Marked[]) => Promise<Int32Array[]>} Encode Ids of each text, with those of the spans marked (`example.ts`). */

/** Parts that are remembered, and the numbers that their ids take; with more, all are forgotten: what is frequent is soon there again. */
const [mostParts, mostNumbers] = [2 ** 18, 2 ** 21]

/** UTF-16 code units of a part that is remembered: of a longer one, the engine would keep the whole text in memory. */
const longest = 48

const mark = 1 << 31

/*
 * What a part came to, as one number: its only id, or where its ids are in the table of those remembered, behind their number, or which of
 * the parts it is that are not known yet. The highest bit: whether all of it is marked.
 */
const [inTable, unknown] = [2 ** 24, 2 ** 28]

/** Of the first code units: what they are; of all others, blanks where nothing is cut. */
const [letter, digit, sign, apostrophe, kindCount] = [1, 2, 3, 4, 5]
const kinds = new Uint8Array(0x530).fill(sign, 0x21, 0x7f)
for (const [first, last] of /** @type {const} */ ([
  [0x41, 0x5a],
  [0x61, 0x7a],
  [0xc0, 0xd6],
  [0xd8, 0xf6],
  [0xf8, 0x24f],
  [0x400, 0x481],
  [0x48a, 0x52f],
])) {
  kinds.fill(letter, first, last + 1)
}
kinds.fill(digit, 0x30, 0x3a)
kinds[0x27] = apostrophe

/** Whether words end between a kind and the next one, by `before * kindCount + after`. */
const wordEnds = new Uint8Array(kindCount ** 2)
for (const [before, after] of /** @type {const} */ ([
  [letter, digit],
  [letter, sign],
  [digit, letter],
  [digit, sign],
  [digit, apostrophe],
  [sign, digit],
  [apostrophe, digit],
])) {
  wordEnds[before * kindCount + after] = 1
}

/** @param {number} unit */
function kindOf(unit) {
  return unit < kinds.length ? /** @type {number} */ (kinds[unit]) : 0
}

export class Memo {
  /** @type {Encode} */
  #encode
  #words
  /** @type {RegExp | undefined} */
  #tokens
  #known = newTable()

  /** @param {Encode} encode @param {import('./cuts.ts').Cuts} cuts */
  constructor(encode, { words, tokens }) {
    this.#encode = encode
    this.#words = words
    // The longest first, as the engine finds them.
    const sorted = tokens.toSorted((a, b) => b.length - a.length)
    const escaped = sorted.map((token) => token.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'))
    this.#tokens = tokens.length === 0 ? undefined : new RegExp(escaped.join('|'), 'g')
  }

  /**
   * Ids of texts, as `encode` itself would find them.
   * @type {Encode}
   */
  async encode(texts) {
    // Another question may be answered while this one waits, and begin a new table.
    const table = this.#known
    /** @type {Marked[]} */
    const missing = []
    /** @type {Map<string, number>} */
    const seen = new Map()
    /** @type {number[]} */
    const codes = []
    const ends = texts.map(({ text, spans: given }) => {
      const spans = given.toSorted((a, b) => a.start - b.start)
      let next = 0
      this.#cut(text, (start, end) => {
        while (next < spans.length && spanAt(spans, next).end <= start) next++
        const span = spans[next]
        const touched = span !== undefined && span.start < end
        const whole = touched && span.start <= start && span.end >= end
        const part = text.slice(start, end)
        if (touched && !whole) {
          const within = spans.slice(next).filter((one) => one.start < end)
          codes.push(unknown + missing.length)
          missing.push({ text: part, spans: within.map((one) => shifted(one, start, end)) })
          return
        }
        let code = table.codes.get(part) ?? seen.get(part)
        if (code === undefined) {
          code = unknown + missing.length
          seen.set(part, code)
          missing.push({ text: part, spans: [] })
        }
        codes.push(whole ? code | mark : code)
      })
      return codes.length
    })
    const found = missing.length === 0 ? [] : await this.#encode(missing)
    for (const [part, code] of seen) this.#remember(part, /** @type {Int32Array} */ (found[code - unknown]))
    return texts.map((_, i) =>
      idsOf(codes, i === 0 ? 0 : /** @type {number} */ (ends[i - 1]), ends[i] ?? 0, { table, found }),
    )
  }

  /** Calls `take` with each part of a text. @param {string} text @param {(start: number, end: number) => void} take */
  #cut(text, take) {
    let from = 0
    if (this.#tokens !== undefined) {
      this.#tokens.lastIndex = 0
      for (let found = this.#tokens.exec(text); found !== null; found = this.#tokens.exec(text)) {
        this.#cutWords(text, from, found.index, take)
        from = this.#tokens.lastIndex
        take(found.index, from)
      }
    }
    this.#cutWords(text, from, text.length, take)
  }

  /** @param {string} text @param {number} from @param {number} end @param {(start: number, end: number) => void} take */
  #cutWords(text, from, end, take) {
    let start = from
    let before = 0
    for (let at = from; at < end; at++) {
      const unit = text.charCodeAt(at)
      const kind = kindOf(unit)
      let cut = start
      if (before === 0) cut = start
      else if (kind !== 0) cut = this.#words && wordEnds[before * kindCount + kind] === 1 ? at : start
      else if ((unit === 32 || unit === 10) && at + 1 < end) {
        const after = kindOf(text.charCodeAt(at + 1))
        if (unit === 32) cut = after === letter || (after !== 0 && this.#words) ? at : start
        else cut = after === letter && this.#words ? at + 1 : start
      }
      if (cut > start) {
        take(start, cut)
        start = cut
      }
      before = kind
    }
    if (start < end) take(start, end)
  }

  /** @param {string} part @param {Int32Array} ids */
  #remember(part, ids) {
    if (part.length > longest) return
    if (this.#known.codes.size >= mostParts || this.#known.used + ids.length >= mostNumbers) this.#known = newTable()
    const table = this.#known
    if (table.codes.has(part)) return
    const [only] = ids
    if (ids.length === 1 && only !== undefined) {
      table.codes.set(copied(part), only)
      return
    }
    table.codes.set(copied(part), inTable + table.used)
    table.numbers[table.used++] = ids.length
    table.numbers.set(ids, table.used)
    table.used += ids.length
  }
}

/** @typedef {{ readonly codes: Map<string, number>, readonly numbers: Int32Array, used: number }} Table */

/** @returns {Table} */
function newTable() {
  return { codes: new Map(), numbers: new Int32Array(mostNumbers), used: 0 }
}

/** A text that holds no other in memory. @param {string} part */
function copied(part) {
  return Buffer.from(part, 'utf16le').toString('utf16le')
}

/** @param {readonly Span[]} spans @param {number} i */
function spanAt(spans, i) {
  return /** @type {Span} */ (spans[i])
}

/** A span as seen from a part. @param {Span} span @param {number} from @param {number} end */
function shifted(span, from, end) {
  return { start: Math.max(span.start, from) - from, end: Math.min(span.end, end) - from }
}

/**
 * @param {readonly number[]} codes @param {number} from @param {number} end
 * @param {{ readonly table: Table, readonly found: readonly Int32Array[] }} tables
 */
function idsOf(codes, from, end, { table: { numbers }, found }) {
  /** @type {number[]} */
  const ids = []
  for (let i = from; i < end; i++) {
    const marked = /** @type {number} */ (codes[i])
    const [code, sign] = marked < 0 ? [marked & ~mark, mark] : [marked, 0]
    if (code < inTable) ids.push(code | sign)
    else if (code >= unknown) for (const id of /** @type {Int32Array} */ (found[code - unknown])) ids.push(id | sign)
    else {
      const at = code - inTable
      for (let k = at + 1; k <= at + /** @type {number} */ (numbers[at]); k++)
        ids.push(/** @type {number} */ (numbers[k]) | sign)
    }
  }
  return Int32Array.from(ids)
}
