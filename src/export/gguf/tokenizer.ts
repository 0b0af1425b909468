import type { JsonObject } from '../../formats/json.ts'
import { openModelFiles } from '../../formats/model-files.ts'
import type { GivenTokenizer } from '../../formats/gguf/tokenizer-write.ts'
import { templatesOf } from '../../text/template/choose.ts'
import { loadTokenizer } from '../../text/tokenizer.ts'
import type { ExportInput } from '../exporter.ts'

const maxTokenizerBytes = 256 * 2 ** 20

/** What a model's tokenizer says of itself, and its files. */
export async function givenTokenizer(
  { model, adapter, cancelled }: Pick<ExportInput, 'model' | 'adapter' | 'cancelled'> & { readonly model: string },
  rows: number,
): Promise<GivenTokenizer> {
  const files = await openModelFiles(model)
  const tokenizer = await loadTokenizer(model, { cancelled })
  try {
    const { addedTokens, specialTokens, roles, prefix, suffix, eosId } = tokenizer
    const listed = files.names.includes('generation_config.json')
      ? endsOf(await files.json('generation_config.json'))
      : []
    return {
      json: await files.json('tokenizer.json', { maxBytes: maxTokenizerBytes }),
      path: files.where('tokenizer.json'),
      addedTokens,
      specialTokens,
      roles,
      prefix,
      suffix,
      ends: [...new Set([eosId, ...listed])].filter((id) => id < rows),
      rows,
      templates: await templatesOf({ model, adapter }),
    }
  } finally {
    tokenizer.close()
  }
}

/** Ids that end a text, by a generation_config.json. */
export function endsOf({ eos_token_id: entry }: JsonObject): number[] {
  return [entry].flat().filter((id): id is number => typeof id === 'number' && Number.isSafeInteger(id) && id >= 0)
}
