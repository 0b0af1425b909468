import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** The end of text and the 256 bytes: merge i makes token `bytes + i`. */
const bytes = 257

/**
 * Puts the tokenizer of the quickstart's model into a folder, with its first `vocabulary` tokens only, so that the embedding of a model may
 * be small.
 */
export async function writeSmallTokenizer(quickstart: string, folder: string, vocabulary: number): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const name of ['tokenizer_config.json', 'generation_config.json', 'special_tokens_map.json']) {
    await cp(join(quickstart, name), join(folder, name))
  }
  const tokenizer = JSON.parse(await readFile(join(quickstart, 'tokenizer.json'), 'utf8')) as {
    model: { vocab: Record<string, number>; merges: string[] }
  }
  const { model } = tokenizer
  model.vocab = Object.fromEntries(Object.entries(model.vocab).filter(([, id]) => id < vocabulary))
  model.merges = model.merges.slice(0, vocabulary - bytes)
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
}
