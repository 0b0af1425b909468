// @ts-check
// The program of the process that tokenizes (process.ts starts it): the Rust library of Hugging Face, which ends the process it runs in
// where an expression of a tokenizer.json is hostile.
import { AddedToken, Tokenizer } from 'tokenizers'
import { Memo } from './memo.js'

/** @typedef {import('./process.ts').Handlers} Handlers */

/** @type {Tokenizer | undefined} */
let tokenizer
/** @type {import('./memo.js').Encode} */
let encode = encodeWhole

function loaded() {
  if (tokenizer === undefined) throw new Error('no tokenizer loaded')
  return tokenizer
}

/** @type {Handlers} */
const tasks = {
  async load({ path, text, added, cuts }) {
    const made = text === undefined ? Tokenizer.fromFile(path) : Tokenizer.fromString(text)
    // What is cut or padded is for Lowrank to decide.
    made.disableTruncation()
    made.disablePadding()
    made.addAddedTokens(
      added.map(
        ({ content, special, single_word: singleWord, lstrip: leftStrip, rstrip: rightStrip, normalized }) =>
          new AddedToken(content, special, { singleWord, leftStrip, rightStrip, normalized }),
      ),
    )
    tokenizer = made
    const memo = cuts && new Memo(encodeWhole, cuts)
    encode = memo === undefined ? encodeWhole : (texts) => memo.encode(texts)
  },

  async encode(texts) {
    return packed(await encode(texts))
  },

  async decode({ sequences, skipSpecialTokens }) {
    return loaded().decodeBatch(
      sequences.map((ids) => Array.from(ids)),
      skipSpecialTokens,
    )
  },

  async idsOf(tokens) {
    return tokens.map((token) => loaded().tokenToId(token) ?? undefined)
  },

  async tokensOf(ids) {
    return ids.map((id) => loaded().idToToken(id) ?? undefined)
  },
}

/**
 * Ids of each text, without special tokens around it, as the library finds them; those of the spans marked.
 * @type {import('./memo.js').Encode}
 */
async function encodeWhole(texts) {
  const encodings = await loaded().encodeBatch(
    texts.map(({ text }) => text),
    { addSpecialTokens: false },
  )
  return encodings.map((encoding, i) => {
    const ids = Int32Array.from(encoding.getIds())
    const { text, spans } = /** @type {import('./memo.js').Marked} */ (texts[i])
    for (const { start, end } of spans.length === 0 ? spans : inCodePoints(text, spans)) {
      const [first, last] = [tokenFrom(encoding, start, end), tokenUpTo(encoding, start, end)]
      // The sign bit is the mark.
      for (let t = first; t <= last; t++) ids[t] = (ids[t] ?? 0) | (1 << 31)
    }
    return ids
  })
}

/** As one array: between processes, each takes its time. @param {readonly Int32Array[]} arrays */
function packed(arrays) {
  const lengths = Int32Array.from(arrays, ({ length }) => length)
  const ids = new Int32Array(lengths.reduce((total, length) => total + length, 0))
  let at = 0
  for (const one of arrays) {
    ids.set(one, at)
    at += one.length
  }
  return { lengths, ids }
}

/** Places as the library counts them. @param {string} text @param {readonly import('./memo.js').Span[]} spans */
function inCodePoints(text, spans) {
  let [at, points] = [0, 0]
  /** @param {number} place */
  const point = (place) => {
    for (; at < place; points++) at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1
    return points
  }
  return spans.map(({ start, end }) => ({ start: point(start), end: point(end) }))
}

/**
 * The first token of the characters from `start` to before `end`; a tokenizer may leave out blanks. Past all tokens where there is none.
 * @param {import('tokenizers').Encoding} encoding @param {number} start @param {number} end
 */
function tokenFrom(encoding, start, end) {
  for (let at = start; at < end; at++) {
    const token = encoding.charToToken(at)
    if (token !== null) return token
  }
  return encoding.getLength()
}

/**
 * The last token of these characters; a character may be of several. Before all tokens where there is none.
 * @param {import('tokenizers').Encoding} encoding @param {number} start @param {number} end
 */
function tokenUpTo(encoding, start, end) {
  for (let at = end - 1; at >= start; at--) {
    let token = encoding.charToToken(at)
    if (token === null) continue
    for (;;) {
      const [from, to] = encoding.tokenToChars(token + 1) ?? [0, 0]
      if (from > at || to <= at) return token
      token++
    }
  }
  return -1
}

/** @param {import('./process.ts').Question} question */
async function answer({ id, task, input }) {
  const run = /** @type {(input: unknown) => Promise<unknown>} */ (tasks[task])
  try {
    process.send?.({ id, value: await run(input) })
  } catch (error) {
    process.send?.({ id, error: error instanceof Error ? error.message : String(error) })
  }
}

process.on('message', (question) => void answer(/** @type {import('./process.ts').Question} */ (question)))
// Whoever asked is gone. An exit would wait for what is being computed.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))
