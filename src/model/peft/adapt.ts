import { closest } from '../../config/index.ts'
import type { TensorDtype, TensorReader } from '../../formats/safetensors.ts'
import type { F32Weight } from '../../storage/stored.ts'
import { bytesToF32 } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { elements } from '../../util/shape.ts'
import { fillUniform, stream } from '../../util/random.ts'
import type { LoraModule } from './lora.ts'
import { type Adapter, baseNameOf, savedTensorName } from './adapter.ts'
import { matchModules, ranksOf, scalesOf, type LoraConfig } from './targets.ts'
import { embeddingName, headName } from '../names.ts'
import { checkFinite, type Rows, type WeightSource } from '../sources/source.ts'
import { linearPaths, type WeightSpec } from '../weight-specs.ts'
import { widened } from '../../storage/formats.ts'

/** What a run changes in a model: which weights it adds, which it trains, and how they start. */
export interface Adaptation {
  readonly adapterOf: (path: string) => LoraModule | undefined
  readonly trainable: (name: string) => boolean
  /** Whether a tied head needs a weight of its own, since head and embedding no longer stay equal. */
  readonly separateHead: boolean
  /** Name of a trained weight in the file of an adapter, as PEFT has it, or of a model. */
  readonly fileName: (name: string) => string
}

/** LoRA as `config` describes it; `loaded` says that it is that of an existing adapter. Throws when a target matches no linear layer. */
export function adaptWithLora(
  { config: decoder, specs }: WeightSource,
  config: LoraConfig,
  { loaded }: { readonly loaded: boolean },
): Adaptation {
  const target = { modelType: decoder.modelType, linears: linearPaths(decoder), head: 'lm_head' }
  const matched = matchModules(config, target, { code: loaded ? 'adapter' : 'config', allowUnmatched: loaded })
  const adapted = new Set(matched)
  const [ranks, scales] = [ranksOf(config, matched), scalesOf(config, matched)]
  const saved = savedModules(
    config.modulesToSave ?? [],
    specs.map((spec) => moduleOf(spec.name)),
  )
  const biases = config.bias
  const trainable = (name: string): boolean => {
    if (/\.lora_[AB]\.weight$/.test(name) || saved.has(moduleOf(name))) return true
    if (!name.endsWith('.bias')) return false
    return biases === 'all' || (biases === 'lora_only' && adapted.has(moduleOf(name)))
  }
  return {
    trainable,
    adapterOf: (path) => {
      const [r, scale] = [ranks.get(path), scales.get(path)]
      return r === undefined || scale === undefined ? undefined : { r, scale, dropout: config.loraDropout }
    },
    // PEFT copies a saved module, which unties the copy from its twin.
    separateHead: decoder.tieWordEmbeddings && (saved.has('lm_head') || saved.has(moduleOf(embeddingName(decoder)))),
    fileName: (name) => savedTensorName(name, adapted.has(moduleOf(name))),
  }
}

/** The base model alone, for evaluation. */
export const frozen: Adaptation = {
  adapterOf: () => undefined,
  trainable: () => false,
  separateHead: false,
  fileName: (name) => name,
}

/** Full fine-tuning: nothing is added and everything is trained. */
export function trainEverything({ storedName }: WeightSource): Adaptation {
  return { ...frozen, trainable: () => true, fileName: storedName }
}

/** The modules that `modulesToSave` names: those whose path ends with an entry, as PEFT matches them. */
function savedModules(entries: readonly string[], modules: readonly string[]): ReadonlySet<string> {
  const candidates = new Set([...modules, 'lm_head'])
  const saved = new Set<string>()
  for (const entry of entries) {
    const found = [...candidates].filter((module) => module.endsWith(entry))
    if (found.length === 0) {
      const names = new Set([...candidates].map((module) => module.split('.').at(-1)))
      const near = closest(
        entry,
        [...names].filter((name) => name !== undefined),
      )
      throw new LowrankError('config', `modulesToSave: "${entry}" matches no module (has ${[...names].join(', ')})`, {
        hint: near === undefined ? undefined : `Did you mean "${near}"?`,
      })
    }
    for (const module of found) saved.add(module)
  }
  return saved
}

function moduleOf(name: string): string {
  return name.replace(/\.(lora_[AB]\.)?(weight|bias)$/, '')
}

/** A (Kaiming uniform with a = sqrt 5, that is, within 1 / sqrt(in)) and B (zeros) of a fresh adapter, as PEFT starts them. */
export function initialLoraWeight(name: string, shape: readonly number[], seed: number): F32Weight {
  const [rows = 0, columns = 0] = shape
  const data = new Float32Array(rows * columns)
  if (name.endsWith('.lora_A.weight')) {
    const bound = 1 / Math.sqrt(columns)
    fillUniform(data, -bound, bound, stream(seed, `init ${name}`))
  }
  return { storage: 'F32', shape, data }
}

/** A trained weight from an adapter file, whatever its dtype, as f32; of `rows` only, if they are given. */
export async function readAdapterWeight(
  reader: TensorReader,
  {
    name,
    shape,
    folder,
    rows,
  }: { readonly name: string; readonly shape: readonly number[]; readonly folder: string; readonly rows?: Rows },
): Promise<F32Weight> {
  const tensor = reader.tensors.get(name)
  if (tensor === undefined) {
    throw new LowrankError('adapter', `${folder}: the tensor ${name}, which adapter_config.json asks for, is missing`, {
      hint: 'Was the adapter made for this base model?',
    })
  }
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i])) {
    throw new LowrankError(
      'adapter',
      `${tensor.file}: tensor ${name} has shape [${tensor.shape.join(', ')}], but this base model needs [${shape.join(', ')}]`,
      { hint: 'Was the adapter made for this base model?' },
    )
  }
  const [count = 1, ...inner] = shape
  const { start, end } = rows ?? { start: 0, end: count }
  const rowBytes = tensor.byteLength / count
  const bytes = await reader.read(name, undefined, { start: start * rowBytes, end: end * rowBytes })
  const weight: F32Weight = { storage: 'F32', shape: [end - start, ...inner], data: toF32(bytes, tensor.dtype) }
  checkFinite(weight, { name, file: tensor.file, code: 'adapter', first: start * elements(inner) })
  return weight
}

/** Values of a tensor of an adapter, which was opened and so has one of the dtypes that are read. */
function toF32(bytes: Uint8Array<ArrayBuffer>, dtype: TensorDtype): Float32Array {
  if (dtype === 'F64') return Float32Array.from(new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8))
  if (dtype === 'F32' || dtype === 'F16' || dtype === 'BF16') return bytesToF32(bytes, dtype)
  throw internalError(`a tensor of an adapter is ${dtype}`)
}

/**
 * Checks that nothing in an adapter would be passed over in silence: each tensor is one that its configuration asks for, or equals the
 * weight of the base model that it stands for, as PEFT saves embeddings where the vocabulary was changed.
 *
 * @throws LowrankError `adapter`: a tensor that changes the model, but that the configuration does not name.
 */
export async function checkAllUsed(
  { tensors }: Pick<Adapter, 'tensors'>,
  base: WeightSource,
  { adapterOf, trainable, fileName }: Adaptation,
): Promise<void> {
  for (const [name, { file, shape }] of tensors.tensors) {
    const weight = baseNameOf(name)
    if (weight.includes('.lora_')) {
      if (adapterOf(moduleOf(weight)) !== undefined) continue
      const { trunk } = base.config
      if (trunk !== 'model' && !weight.startsWith(`${trunk}.`)) {
        throw new LowrankError('adapter', `${file}: ${name} adapts a part of the model that is not computed`, {
          hint: `Only ${trunk} is. PEFT adapts it alone where target_modules is a regular expression: ".*\\.language_model\\..*\\.(q_proj|v_proj)".`,
        })
      }
      throw new LowrankError('adapter', `${file}: the configuration of the adapter leaves out ${name}`, {
        hint: 'target_modules, exclude_modules and layers_to_transform in adapter_config.json must choose the modules of the file.',
      })
    }
    const known = base.specs.find((spec) => spec.name === weight) ?? (weight === headName ? base.specs[0] : undefined)
    if (known !== undefined && trainable(weight) && fileName(weight) === name) continue
    if (known !== undefined && known.shape.join() === shape.join()) {
      const [own, stored] = [
        (await readAdapterWeight(tensors, { name, shape, folder: file })).data,
        await base.load(known.name),
      ]
      const expected = widened(stored).data
      if (own.every((value, i) => value === expected[i])) continue
    }
    const fits = known === undefined || known.shape.join() === shape.join()
    const size = fits ? '' : `, and the base model has it as [${known.shape.join(', ')}]`
    throw new LowrankError(
      'adapter',
      `${file}: ${name} [${shape.join(', ')}] is none of the weights that adapter_config.json asks for${size}`,
      { hint: hintFor(known, weight, shape) },
    )
  }
}

function hintFor(known: WeightSpec | undefined, weight: string, shape: readonly number[]): string {
  if (known === undefined) return 'Was the adapter made for this base model?'
  const module = moduleOf(weight).split('.').at(-1)
  return known.shape.join() === shape.join()
    ? `It differs from that of the base model. To use it, add "${module}" to modules_to_save in adapter_config.json.`
    : 'The vocabulary was resized when the adapter was trained: resize and save the base model in the same way, and name that.'
}
