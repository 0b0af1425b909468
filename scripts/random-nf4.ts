import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeCheckpoint } from '../src/formats/checkpoint.ts'
import type { TensorSource } from '../src/formats/safetensors.ts'
import { parseDecoderConfig } from '../src/model/config.ts'
import { withQuantizationConfig } from '../src/model/bitsandbytes/config.ts'
import { savedTensors } from '../src/model/bitsandbytes/save.ts'
import { linearPaths, weightSpecs, type WeightSpec } from '../src/model/weight-specs.ts'
import { dynamicMap } from '../src/storage/blockwise.ts'
import type { FourBitWeight } from '../src/storage/stored.ts'
import { f32ToBf16 } from '../src/util/dtype.ts'
import { fillNormal, fillUniform, stream } from '../src/util/random.ts'
import { elements } from '../src/util/shape.ts'

/** The shape of a Llama, or of a Qwen 2, which has biases on q, k and v. */
export interface ModelShape {
  readonly family?: 'llama' | 'qwen2'
  readonly layers: number
  readonly hidden: number
  readonly ffn: number
  readonly heads: number
  readonly kvHeads: number
  readonly vocabulary: number
  /** Whether the output head is the embedding; by default it is not. */
  readonly tied?: boolean
  /** Positions the model is made for; 4096 by default. */
  readonly positions?: number
}

export const quantization = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 } as const

/** config.json of a model of this shape. */
function configOf(shape: ModelShape): Record<string, unknown> {
  const { layers, hidden, ffn, heads, kvHeads, vocabulary, tied = false, positions = 4096 } = shape
  const { family = 'llama' } = shape
  return {
    architectures: [family === 'llama' ? 'LlamaForCausalLM' : 'Qwen2ForCausalLM'],
    model_type: family,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    vocab_size: vocabulary,
    max_position_embeddings: positions,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: tied,
    torch_dtype: 'bfloat16',
  }
}

/** Bytes that the weights of such a model take on disk. */
export function modelBytes(shape: ModelShape): number {
  const config = parseDecoderConfig(configOf(shape), 'config.json')
  const linears = new Set(linearPaths(config).map((path) => `${path}.weight`))
  return weightSpecs(config).reduce((total, spec) => {
    const packed = linears.has(spec.name) && spec.name !== 'lm_head.weight'
    return total + elements(spec.shape) * (packed ? 0.5 + 1 / 64 + 4 / (64 * 256) : 2)
  }, 0)
}

/**
 * Writes a model of random weights tensor by tensor, by default straight in the 4-bit layout: at no time is more than one of them in
 * memory. The weights are slices of one random pool, which is as good for speed and memory as any others.
 */
export async function writeRandomModel(
  folder: string,
  shape: ModelShape,
  tokenizerFolder: string,
  { storage = 'nf4' }: { readonly storage?: 'nf4' | 'BF16' | 'F32' } = {},
): Promise<void> {
  await mkdir(folder, { recursive: true })
  const json = configOf(shape)
  const config = parseDecoderConfig(json, 'config.json')
  const linears = new Set(storage === 'nf4' ? linearPaths(config).map((path) => `${path}.weight`) : [])
  linears.delete('lm_head.weight')
  const dtype = storage === 'F32' ? 'F32' : 'BF16'
  const pool = randomPool()
  const tensors = weightSpecs(config).flatMap((spec, i): TensorSource[] => {
    const { name, shape: dims } = spec
    if (linears.has(name)) {
      const make = (): Promise<FourBitWeight> => Promise.resolve(randomFourBit(spec, pool, i))
      return savedTensors({ name, shape: dims, quantization, dtype, make })
    }
    const data = (): Uint8Array => {
      const values = new Float32Array(elements(spec.shape))
      if (name.endsWith('norm.weight')) values.fill(1)
      else repeat(values, pool.normal, i)
      return new Uint8Array((dtype === 'F32' ? values : f32ToBf16(values)).buffer)
    }
    return [{ name, dtype, shape: dims, data }]
  })
  await writeCheckpoint(folder, tensors, { maxShardBytes: 5e9 })
  const plain = JSON.stringify(json, null, 2)
  const text = storage === 'nf4' ? withQuantizationConfig(plain, quantization) : plain
  await writeFile(join(folder, 'config.json'), text)
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    await copyFile(join(tokenizerFolder, name), join(folder, name))
  }
}
interface Pool {
  readonly bytes: Uint8Array
  /** Standard deviation 0.02. */
  readonly normal: Float32Array
}

function randomPool(): Pool {
  const uniform = new Float32Array(2 ** 22)
  fillUniform(uniform, 0, 256, stream(1, 'codes'))
  const normal = new Float32Array(2 ** 20)
  fillNormal(normal, 0, 0.02, stream(1, 'normal'))
  return { bytes: Uint8Array.from(uniform), normal }
}

/** Codes of all 16 values, scales of about 0.04: weights of about 0.02. */
function randomFourBit(spec: WeightSpec, pool: Pool, salt: number): FourBitWeight {
  const { quantType, blockSize } = quantization
  const count = elements(spec.shape)
  const blocks = Math.ceil(count / blockSize)
  const codes = new Uint8Array(Math.ceil(count / 2))
  repeat(codes, pool.bytes, salt)
  const scaleCodes = new Uint8Array(blocks)
  repeat(scaleCodes, pool.bytes, salt + 1)
  const absmax = new Float32Array(Math.ceil(blocks / 256)).fill(0.01)
  const scales = { codes: scaleCodes, absmax, map: dynamicMap(true), offset: Math.fround(0.04) }
  return {
    storage: quantization,
    shape: spec.shape,
    packed: { quantType, blockSize, count, codes, scales },
  }
}

/** Fills an array with the pool over and over, from a place that depends on `salt`. */
function repeat<T extends Uint8Array | Float32Array>(out: T, pool: T, salt: number): void {
  for (let done = 0, at = (salt * 7919) % pool.length; done < out.length; at = 0) {
    const piece = pool.subarray(at, at + out.length - done)
    out.set(piece, done)
    done += piece.length
  }
}
