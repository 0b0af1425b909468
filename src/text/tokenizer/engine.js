// @ts-check
// The program of the process that tokenizes (process.ts starts it): the Rust library of Hugging Face, which ends the process it runs in
// where an expression of a tokenizer.json is hostile.
import { AddedToken, Tokenizer } from 'tokenizers'

/** @typedef {import('./process.ts').Handlers} Handlers */

/** @type {Tokenizer | undefined} */
let tokenizer

function loaded() {
  if (tokenizer === undefined) throw new Error('no tokenizer loaded')
  return tokenizer
}

/** @type {Handlers} */
const tasks = {
  async load({ path, text, added }) {
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
  },

  async encode(texts) {
    const encodings = await loaded().encodeBatch([...texts], { addSpecialTokens: false })
    return encodings.map((encoding) => Int32Array.from(encoding.getIds()))
  },

  async encodeMarked(inputs) {
    const texts = inputs.map(({ text }) => text)
    const encodings = await loaded().encodeBatch(texts, { addSpecialTokens: false })
    return encodings.map((encoding, i) => {
      const ids = Int32Array.from(encoding.getIds())
      for (const { start, end } of inputs[i]?.spans ?? []) {
        const [first, last] = [tokenFrom(encoding, start, end), tokenUpTo(encoding, start, end)]
        // The sign bit is the mark.
        for (let t = first; t <= last; t++) ids[t] = (ids[t] ?? 0) | (1 << 31)
      }
      return ids
    })
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
