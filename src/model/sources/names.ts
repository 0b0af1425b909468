import { renameTensors, type TensorReader, type TensorSource } from '../../formats/safetensors.ts'
import { LowrankError } from '../../util/errors.ts'
import type { DecoderConfig } from '../decoder.ts'
import { embeddingName, headName } from '../names.ts'

/** The tensors of a checkpoint as a decoder sees them. */
export interface DecoderTensors {
  /** Its own, by the names that it asks for. */
  readonly reader: TensorReader
  /** As in `WeightSource`. */
  readonly storedName: (name: string) => string
  readonly beside: readonly TensorSource[]
}

/**
 * A checkpoint by the names that a decoder asks for. As transformers does, one of the decoder without its head is read, whose names lack
 * `model.`; and one of a tied model that holds the head only, which is the embedding too. Of a model that is more than a decoder, the
 * other parts are left out.
 */
export function decoderTensors(checkpoint: TensorReader, config: DecoderConfig): DecoderTensors {
  if (config.trunk === 'model') {
    return { reader: withDecoderNames(checkpoint, config), storedName: (name) => name, beside: [] }
  }
  // transformers 4 and 5 write the first form, and have the second in memory.
  const nameOf = (name: string): string =>
    name.replace(/^language_model\.(model\.|(?=lm_head\.))/, (_, inner) => (inner === '' ? '' : `${config.trunk}.`))
  const others = [...checkpoint.tensors].filter(([name]) => isOfImages(name))
  const own = renameTensors(checkpoint, (name) => (isOfImages(name) ? undefined : nameOf(name)))
  const stored = new Map([...checkpoint.tensors.keys()].map((name) => [nameOf(name), name]))
  return {
    reader: withDecoderNames(own, config),
    storedName: (name) => stored.get(name) ?? name,
    beside: others.map(([name, { dtype, shape }]) => ({ name, dtype, shape, data: () => checkpoint.read(name) })),
  }
}

/** The modules that turn images into embeddings. */
export const imageModules: readonly string[] = ['vision_tower', 'multi_modal_projector']

function isOfImages(name: string): boolean {
  return imageModules.some((module) => name.startsWith(`${module}.`) || name.startsWith(`${prefix}${module}.`))
}

function withDecoderNames(reader: TensorReader, config: DecoderConfig): TensorReader {
  const embedding = embeddingName(config)
  const stored = [...reader.tensors.keys()]
  const bare = stored.includes(embedding.slice(prefix.length)) && !stored.some((name) => name.startsWith(prefix))
  const named = (name: string): string => (bare && name !== headName ? prefix + name : name)
  const headOnly = config.tieWordEmbeddings && !stored.map(named).includes(embedding)
  return renameTensors(reader, (name) => (headOnly && name === headName ? embedding : named(name)))
}

/**
 * Whether a checkpoint that is tied by its configuration holds a head that differs from the embedding. Such a head is used: to tie it
 * would lose what it was trained to, and transformers does not do it either.
 */
export async function hasOwnHead(reader: TensorReader, config: DecoderConfig): Promise<boolean> {
  const [head, embedding] = [reader.tensors.get(headName), reader.tensors.get(embeddingName(config))]
  if (!config.tieWordEmbeddings || head === undefined || embedding === undefined) return false
  if (head.dtype !== embedding.dtype || head.shape.join() !== embedding.shape.join()) return true
  const [a, b] = [await reader.read(headName), await reader.read(embeddingName(config))]
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
