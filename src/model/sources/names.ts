import { renameTensors, type TensorReader } from '../../formats/safetensors.ts'
import { LowrankError } from '../../util/errors.ts'
import type { DecoderConfig } from '../decoder.ts'
import { embeddingName, headName } from '../names.ts'

/**
 * A checkpoint by the names that a decoder asks for. As transformers does, one of the decoder without its head is read, whose names lack
 * `model.`; and one of a tied model that holds the head only, which is the embedding too.
 */
export function withDecoderNames(reader: TensorReader, { tieWordEmbeddings }: DecoderConfig): TensorReader {
  const stored = [...reader.tensors.keys()]
  const bare = stored.includes(embeddingName.slice(prefix.length)) && !stored.some((name) => name.startsWith(prefix))
  const named = (name: string): string => (bare && name !== headName ? prefix + name : name)
  const headOnly = tieWordEmbeddings && !stored.map(named).includes(embeddingName)
  return renameTensors(reader, (name) => (headOnly && name === headName ? embeddingName : named(name)))
}

/**
 * Whether a checkpoint that is tied by its configuration holds a head that differs from the embedding. Such a head is used: to tie it
 * would lose what it was trained to, and transformers does not do it either.
 */
export async function hasOwnHead(reader: TensorReader, { tieWordEmbeddings }: DecoderConfig): Promise<boolean> {
  const [head, embedding] = [reader.tensors.get(headName), reader.tensors.get(embeddingName)]
  if (!tieWordEmbeddings || head === undefined || embedding === undefined) return false
  if (head.dtype !== embedding.dtype || head.shape.join() !== embedding.shape.join()) return true
  const [a, b] = [await reader.read(headName), await reader.read(embeddingName)]
  return Buffer.compare(a, b) !== 0
}

/**
 * Checks that a checkpoint holds nothing that would be passed over in silence. A tied head need not be listed.
 *
 * @throws LowrankError `model`: a tensor that is neither among `used` nor known to be of no use.
 */
export function checkAllUsed(folder: string, reader: TensorReader, used: ReadonlySet<string>): void {
  const unused = [...reader.tensors].filter(
    ([name, { shape }]) => !used.has(name) && name !== headName && !shape.includes(0) && !isHarmless(name, used),
  )
  const [first] = unused
  if (first === undefined) return
  const [, { name, shape }] = first
  const others = unused.length > 1 ? ` and ${unused.length - 1} more tensors` : ''
  throw new LowrankError(
    'model',
    `${folder}: the checkpoint holds ${JSON.stringify(name)} [${shape.join(', ')}]${others}, which the model that config.json describes does not use`,
    { hint: 'The model may be of another kind than config.json says; it would be computed without these weights.' },
  )
}

const prefix = 'model.'

/** Tables that follow from config.json, which older versions of transformers saved, and what describes a quantized weight. */
function isHarmless(name: string, used: ReadonlySet<string>): boolean {
  if (/\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$/.test(name)) return true
  const described =
    /^(.*\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+)$/.exec(name)?.[1] ??
    name.replace(/\.(SCB|weight_format)$/, '.weight')
  return used.has(described)
}
