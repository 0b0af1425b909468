import { writeFile } from 'node:fs/promises'
import { isJsonObject } from '../../formats/json.ts'
import { readJsonl } from '../../formats/jsonl.ts'

/** Prompts and completions of mixed length, so that batches of them have padding. */
const pairs: readonly (readonly [string, string])[] = [
  ['The capital of France is', ' Paris, on the river Seine.'],
  ['Two and two make', ' four.'],
  ['Ticket: I was charged twice for one order, and nobody answers the phone.\nCategory:', ' billing'],
  ['Water boils at', ' one hundred degrees, at sea level and under normal pressure.'],
  ['Colours of a rainbow: red, orange, yellow,', ' green, blue, indigo and violet.'],
  ['She opened the door and', ' saw that the garden had changed overnight: everything was white.'],
  ['Ticket: the parcel came open.\nCategory:', ' shipping'],
  ['Once', ' upon a time there was a king who could not sleep.'],
  ['A week has', ' seven days.'],
  ['To make tea, boil water, pour it over the leaves, wait for three minutes, and then', ' take the leaves out.'],
  ['Birds', ' fly.'],
  ['The quick brown fox jumps over', ' the lazy dog.'],
]

/** Examples of a step of the checks; the file holds at most two steps of them. */
export const examplesPerStep = 8

/** Writes what the checks train on to `path`: the first examples of `source`, or texts of our own. */
export async function writeData(path: string, source: string | undefined): Promise<void> {
  const lines: unknown[] = []
  if (source === undefined) {
    for (const [prompt, completion] of pairs) lines.push({ prompt, completion })
  } else {
    for await (const entry of readJsonl(source)) {
      if (!('value' in entry) || !isJsonObject(entry.value)) continue
      const { prompt, completion } = entry.value
      if (typeof prompt === 'string' && typeof completion === 'string') lines.push({ prompt, completion })
      if (lines.length === 2 * examplesPerStep) break
    }
  }
  await writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
}
