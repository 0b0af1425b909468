import { z } from 'zod'
import type { TensorReader } from '../formats/safetensors.ts'
import { isFloat, type FloatWeight, type StoredWeight } from '../storage/stored.ts'
import { bytesToF32, float8Bits, isFloat8 } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'
import { badPart, checkScales, type QuantizedSpec } from './bitsandbytes/parts.ts'

/** Weights in numbers of 8 bits, each block of them with a scale, as DeepSeek and Qwen publish them. */
export interface PromisedFp8 {
  readonly kind: 'fp8'
  /** Rows and columns of a block; those at the edges may be smaller. Undefined: one scale for a whole weight. */
  readonly block: readonly [rows: number, columns: number] | undefined
}

const side = z
  .int()
  .min(1)
  .max(2 ** 20)
const schema = z.object({
  weight_block_size: z.tuple([side, side]).nullish(),
  fmt: z.string().nullish(),
  scale_fmt: z.string().nullish(),
  activation_scheme: z.string().nullish(),
})

/** What is supported of each key; what is left out counts as the first. */
const supported = { fmt: ['e4m3', 'e5m2'], scale_fmt: ['float'], activation_scheme: ['dynamic'] } as const

/** Reads a `quantization_config` whose `quant_method` is "fp8" (`FineGrainedFP8Config` of transformers). */
export function parseFp8Config(json: unknown, refuse: (message: string, hint?: string) => never): PromisedFp8 {
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    return refuse(
      parsed.error.issues.map(({ path, message }) => `quantization_config.${path.join('.')}: ${message}`).join('; '),
    )
  }
  const c = parsed.data
  for (const [key, values] of Object.entries(supported)) {
    const value = c[key as keyof typeof supported]
    if (value === undefined || value === null || (values as readonly string[]).includes(value)) continue
    refuse(
      `quantization_config.${key} ${JSON.stringify(value)} of weights in FP8 is not supported (supported: ${values.join(', ')})`,
      'Supported are weights in F8_E4M3 or F8_E5M2 with scales for blocks (weight_block_size) or one for each, in F32, BF16 or F16.',
    )
  }
  return { kind: 'fp8', block: c.weight_block_size === undefined ? [128, 128] : (c.weight_block_size ?? undefined) }
}

/** The scales of a weight in FP8. */
export const scalesOf = (weight: string): string => `${weight}_scale_inv`

/** A weight in FP8 with scales, as f32. */
interface Fp8Entry {
  readonly storage: 'F32'
  readonly load: (reuse?: StoredWeight) => Promise<FloatWeight>
}

/**
 * Finds the weights in FP8 that have scales, and checks these. Each is loaded as what it stands for, its numbers multiplied by their scales
 * in f32: the products are rounded once, as transformers does where it dequantizes such a model to f32.
 *
 * @throws LowrankError `model`: a weight in FP8 has no scales, or scales for other blocks than config.json says.
 */
export function openFp8(
  reader: TensorReader,
  { folder, specs, promised }: { folder: string; specs: readonly QuantizedSpec[]; promised: PromisedFp8 },
): ReadonlyMap<string, Fp8Entry> {
  const entries = new Map<string, Fp8Entry>()
  for (const { name, shape } of specs) {
    const info = reader.tensors.get(name)
    if (info === undefined || !isFloat8(info.dtype)) continue
    const [rows = 0, columns = 1] = shape
    const { block = [rows, columns] } = promised
    const grid = promised.block && [Math.ceil(rows / block[0]), Math.ceil(columns / block[1])]
    const scales = reader.tensors.get(scalesOf(name))
    const expected =
      grid === undefined ? 'one scale' : `a scale for each block of ${block.join(' x ')}, [${grid.join(', ')}]`
    if (scales === undefined) throw badPart(reader, name, `${info.dtype} without ${scalesOf(name)}`, expected)
    const fits = grid === undefined ? elements(scales.shape) === 1 : scales.shape.join() === grid.join()
    const { dtype } = scales
    if (!fits || (dtype !== 'F32' && dtype !== 'BF16' && dtype !== 'F16')) {
      throw badPart(reader, scalesOf(name), `${dtype} [${scales.shape.join(', ')}]`, `${expected}, in F32, BF16 or F16`)
    }
    const bits = float8Bits(info.dtype)
    entries.set(name, {
      storage: 'F32',
      load: async (reuse) => {
        const [codes, scaleBytes] = await Promise.all([reader.read(name), reader.read(scalesOf(name))])
        const factors = bytesToF32(scaleBytes, dtype)
        checkScales(reader, scalesOf(name), factors)
        const fitsInto = reuse !== undefined && isFloat(reuse) && reuse.data.length === codes.length
        const data = fitsInto && reuse.data instanceof Float32Array ? reuse.data : new Float32Array(codes.length)
        multiply(codes, { values: valuesOf(bits), factors, columns, block }, data)
        return { storage: 'F32', shape, data }
      },
    })
  }
  if (entries.size > 0) return entries
  throw new LowrankError('model', `${folder}: config.json says that weights are in FP8, but none is`, {
    hint: 'Remove quantization_config from config.json, or take the weights that belong to it.',
  })
}

function valuesOf(bits: Uint16Array): Float32Array {
  return bytesToF32(new Uint8Array(bits.buffer), 'BF16')
}

function multiply(
  codes: Uint8Array,
  how: {
    readonly values: Float32Array
    readonly factors: Float32Array
    readonly columns: number
    readonly block: readonly [number, number]
  },
  out: Float32Array,
): void {
  const { values, factors, columns, block } = how
  const across = Math.ceil(columns / block[1])
  for (let start = 0; start < codes.length; start += columns) {
    const row = Math.floor(start / columns / block[0]) * across
    for (let i = 0; i < across; i++) {
      const factor = factors[row + i]!
      const end = start + Math.min((i + 1) * block[1], columns)
      // A product of two f32 is exact in f64, so that storing it rounds it once.
      for (let at = start + i * block[1]; at < end; at++) out[at] = values[codes[at]!]! * factor
    }
  }
}
