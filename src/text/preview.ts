import type { Example } from './example.ts'
import type { Tokenizer } from './tokenizer.ts'

/** A token as the model sees it. */
export interface PreviewToken {
  readonly id: number
  /** Its text; empty for all but the last token of a character. */
  readonly text: string
  /** Whether it is a label, that is, learned. */
  readonly label: boolean
  /** Whether it is a special token. */
  readonly special: boolean
}

/** An example as the model sees it. */
export interface PreviewRow {
  /** Which example it is, from 1, and where it is from: `data.jsonl:12`. */
  readonly row: number
  readonly place: string
  readonly tokens: readonly PreviewToken[]
}

/** The tokens of an example with the text of each. */
export async function previewTokens({ ids, labelMask }: Example, tokenizer: Tokenizer): Promise<PreviewToken[]> {
  const special = new Set(
    tokenizer.specialTokens.map((token) => tokenizer.addedTokens.get(token)).filter((id) => id !== undefined),
  )
  const texts = await pieces(ids, tokenizer)
  return Array.from(ids, (id, t) => ({ id, text: texts[t]!, label: labelMask[t] === 1, special: special.has(id) }))
}

/** More tokens than any character is made of. */
const mostTogether = 8

/** The text of each token; what makes a character only together is put to the last of these. */
async function pieces(ids: Int32Array, tokenizer: Tokenizer): Promise<string[]> {
  const found = new Array<string>(ids.length).fill('')
  // A decoder may take a blank away at the beginning of a text: behind what came before, it is there.
  let before = ids.subarray(0, 0)
  for (let start = 0; start < ids.length;) {
    let end = start
    let text = '\ufffd'
    while (text.endsWith('\ufffd') && end < ids.length && end - start < mostTogether) {
      end++
      const sequences = [before, ids.subarray(start - before.length, end)]
      const [known = '', all = ''] = await tokenizer.decode(sequences, { skipSpecialTokens: false })
      text = all.startsWith(known) ? all.slice(known.length) : all
    }
    found[end - 1] = text
    before = ids.subarray(start, end)
    start = end
  }
  return found
}
