/*
 * Remakes examples/quickstart: tokenizer, data and the base model, which is trained from random weights by Lowrank
 * itself. Run from the project's root with `npm run quickstart:make`; README.md beside this file says what comes out.
 */
import { createWriteStream } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import { finetune } from '../../src/index.ts'
import { loadTokenizer, type Tokenizer } from '../../src/text/tokenizer.ts'
import { tokenizerJson, tokenizerSettings, trainBpe } from './bpe.ts'
import { corpus } from './corpus.ts'
import { modelConfig, pretraining, sizes } from './settings.ts'
import { tickets } from './tickets.ts'

const seed = 1
const target = join('examples', 'quickstart')

await mkdir(join(target, 'model'), { recursive: true })
const work = await mkdtemp(join(tmpdir(), 'lowrank-quickstart-'))
try {
  await writeTickets()
  const texts = [...corpus({ seed, documents: sizes.documents })]
  await writeModelFolder(texts)
  const pieces = join(work, 'corpus.jsonl')
  await writePieces(pieces, texts, await loadTokenizer(join(target, 'model')))
  if (!process.argv.includes('--no-train')) await pretrain(pieces)
} finally {
  await rm(work, { recursive: true, force: true })
}

/** train.jsonl and valid.jsonl; no ticket is in both. */
async function writeTickets(): Promise<void> {
  const all = tickets({ seed, count: sizes.train + sizes.valid })
  const lines = all.map((ticket) => `${JSON.stringify(ticket)}\n`)
  await writeFile(join(target, 'train.jsonl'), lines.slice(0, sizes.train).join(''))
  await writeFile(join(target, 'valid.jsonl'), lines.slice(sizes.train).join(''))
}

/** Everything of the model folder but the weights. */
async function writeModelFolder(texts: readonly string[]): Promise<void> {
  const bpe = trainBpe(texts.slice(0, sizes.tokenizerDocuments), modelConfig.vocab_size)
  if (bpe.tokens.length !== modelConfig.vocab_size) {
    throw new Error(`the corpus yields ${bpe.tokens.length} tokens, not ${modelConfig.vocab_size} (settings.ts)`)
  }
  const files = {
    'config.json': modelConfig,
    'tokenizer.json': tokenizerJson(bpe),
    ...tokenizerSettings(modelConfig.max_position_embeddings),
  }
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(target, 'model', name), `${JSON.stringify(content, null, 2)}\n`)
  }
}

/**
 * The corpus as training examples with an empty prompt. Short texts share a piece, with a blank line between them, so
 * that pieces are about equally long and little of a batch is padding. With no prompt and no BOS the first token of a
 * piece has nothing to predict it, so labels start at the second; the end-of-text token comes last.
 */
async function writePieces(path: string, texts: readonly string[], tokenizer: Tokenizer): Promise<void> {
  const out = createWriteStream(path)
  let piece = ''
  let tokens = 0
  let pieces = 0
  const countOf = async (text: string): Promise<number> => (await tokenizer.encode([text]))[0]?.length ?? 0
  const flush = async (): Promise<void> => {
    if (piece === '') return
    out.write(`${JSON.stringify({ prompt: '', completion: piece })}\n`)
    tokens += await countOf(piece)
    pieces++
  }
  for (const text of texts) {
    const longer = piece === '' ? text : `${piece}\n\n${text}`
    // One place is for the end-of-text token.
    if ((await countOf(longer)) < pretraining.maxLength) {
      piece = longer
      continue
    }
    await flush()
    piece = text
  }
  await flush()
  out.end()
  await finished(out)
  console.error(`corpus: ${texts.length} texts, ${pieces} pieces, ${tokens} tokens`)
}

/** Random weights to a small language model; the checkpoint joins the tokenizer in the model folder. */
async function pretrain(pieces: string): Promise<void> {
  const outputDir = join(work, 'pretrained')
  const run = finetune({
    method: 'full',
    init: 'random',
    model: join(target, 'model'),
    train: pieces,
    outputDir,
    seed,
    ...pretraining,
  })
  for await (const event of run) {
    if (event.type === 'log') {
      console.error(
        `step ${event.step}: loss ${event.loss.toFixed(3)}, learning rate ${event.learningRate.toExponential(2)}`,
      )
    }
    if (event.type === 'done') console.error(`pretrained in ${Math.round(event.seconds)} s`)
  }
  const weights = join(target, 'model', 'model.safetensors')
  await copyFile(join(outputDir, 'model.safetensors'), weights)
  const { size } = await stat(weights)
  if (size > sizes.modelBytes) throw new Error(`${weights} has ${size} bytes, more than ${sizes.modelBytes}`)
}
