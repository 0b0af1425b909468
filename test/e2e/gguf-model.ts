import { cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TypedValue } from '../../src/formats/gguf/values.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { type LlamaJson, writeLlamaGguf } from '../../src/model/sources/gguf.fixture.ts'
import { readJson } from './support.ts'

/**
 * Makes of a Llama folder with the tokenizer of the quickstart a GGUF file in Q8_0, its head in `head`, as the converter of llama.cpp does, and a folder of the
 * same weights in f32.
 */
export async function writeAsGguf(
  model: string,
  file: string,
  folder: string,
  { head }: { readonly head?: 'Q6_K' | undefined } = {},
): Promise<void> {
  const config = readJson(join(model, 'config.json')) as LlamaJson
  const source = await openWeights(model)
  const same = await writeLlamaGguf(file, source, { config, matrices: 'Q8_0', head, metadata: tokenizerOf(model) })
  await source.close()
  mkdirSync(folder)
  for (const name of readdirSync(model).filter((one) => one.endsWith('.json') && !/^(run|adapter)/.test(one))) {
    cpSync(join(model, name), join(folder, name))
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, torch_dtype: 'float32' }))
  await writeSafetensors(
    join(folder, 'model.safetensors'),
    same.map(({ name, shape, data }) => ({
      name,
      dtype: 'F32',
      shape,
      data: new Uint8Array(data.buffer as ArrayBuffer),
    })),
  )
}

function tokenizerOf(model: string): Record<string, TypedValue> {
  const { model: bpe } = readJson(join(model, 'tokenizer.json')) as {
    readonly model: { readonly vocab: Record<string, number>; readonly merges: readonly (string | readonly string[])[] }
  }
  const tokens = Object.entries(bpe.vocab).toSorted(([, a], [, b]) => a - b)
  return {
    'tokenizer.ggml.model': ['text', 'gpt2'],
    'tokenizer.ggml.pre': ['text', 'gpt-2'],
    'tokenizer.ggml.tokens': ['list', 'text', tokens.map(([token]) => token)],
    'tokenizer.ggml.token_type': ['list', 'i32', tokens.map((_, id) => (id === 0 ? 3 : 1))],
    'tokenizer.ggml.merges': [
      'list',
      'text',
      bpe.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' '))),
    ],
    'tokenizer.ggml.eos_token_id': ['u32', 0],
  }
}
