import { stat } from 'node:fs/promises'
import type { TrainConfig } from '../config/index.ts'
import { standardInput } from '../formats/chunks.ts'
import { hashText } from '../formats/hash.ts'
import { openModelFiles } from '../formats/model-files.ts'
import type { Dataset } from '../text/dataset.ts'
import { readExamples, type ReadExamplesOptions } from '../text/examples.ts'
import type { DataSource } from '../text/readers/index.ts'
import type { TokenSink } from '../text/store.ts'
import type { ChatTemplate } from '../text/template/template.ts'
import { cachedDataset, defaultTokenCache } from '../text/token-cache.ts'
import type { Tokenizer } from '../text/tokenizer.ts'

/** What decides the tokens of data. */
export type ReadOptions = Pick<TrainConfig, 'maxLength'> &
  Partial<
    Pick<
      TrainConfig,
      | 'shape'
      | 'columns'
      | 'chat'
      | 'chatTemplate'
      | 'templateDate'
      | 'trainOnInputs'
      | 'lastTurnOnly'
      | 'skipBadLines'
      | 'dataCache'
    >
  > &
  Pick<ReadExamplesOptions, 'keepSamples' | 'prepare'>

interface ReadTokensOptions extends ReadOptions {
  readonly model: string
  readonly sources: readonly DataSource[]
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate | undefined
  readonly vocabSize: number
  readonly cancelled: () => boolean
  readonly report?: ((message: string) => void) | undefined
}

/** Bytes of files from which on their tokens are kept on disk: fewer are read again in seconds, and take little memory. */
const large = 64e6

/** Reads data, or finds its tokens in the cache: see `readExamples` and `cachedDataset`. */
export async function readTokens(options: ReadTokensOptions): Promise<Dataset> {
  const { model, sources, tokenizer, template, vocabSize, maxLength } = options
  const { shape, columns, chat, trainOnInputs, lastTurnOnly, skipBadLines } = options
  const turns = lastTurnOnly === true ? 'last' : 'all'
  const read = (tokens?: TokenSink): Promise<Dataset> => readExamples({ ...options, turns, tokens })
  const folder = await cacheFolder(options)
  if (folder === undefined) return read()
  const { prefix, eosId } = tokenizer
  const key = {
    tokenizer: await tokenizerHash(model),
    prefix,
    eosId,
    vocabSize,
    template: template && [template.hash, tokenizer.roles, ...(template.writesDate ? [template.day] : [])],
    options: [shape, columns, chat, trainOnInputs, turns, maxLength, skipBadLines],
  }
  return cachedDataset(folder, { sources, key }, read)
}

/** Where the tokens are kept, if they are. */
async function cacheFolder({
  sources,
  dataCache,
  keepSamples,
  prepare,
}: ReadTokensOptions): Promise<string | undefined> {
  // A cache holds tokens alone, of samples as they are read.
  if (keepSamples === true || prepare !== undefined) return undefined
  if (dataCache === 'none' || sources.some(({ path }) => path === standardInput)) return undefined
  if (dataCache !== undefined) return dataCache
  let bytes = 0
  for (const { path } of sources) {
    const found = await stat(path).catch(() => undefined)
    // A pipe can be read once.
    if (found?.isFile() !== true) return undefined
    bytes += found.size
  }
  return bytes > large ? defaultTokenCache(process.env) : undefined
}

async function tokenizerHash(model: string): Promise<string> {
  const files = await openModelFiles(model)
  const parts: string[] = []
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json']) {
    parts.push(name, files.names.includes(name) ? hashText(await files.text(name)) : '')
  }
  return hashText(parts.join('\n'))
}
