import { z } from 'zod'
import type { Quantization } from '../../config/index.ts'
import { parseFp8Config, type PromisedFp8 } from '../fp8.ts'
import { editJson } from '../../formats/json-edit.ts'
import type { FourBitType } from '../../storage/fourbit.ts'

/** What `quantization_config` of a config.json says of the weights; undefined where it is silent. */
export type PromisedQuantization = PromisedBitsAndBytes | PromisedFp8

export type PromisedBitsAndBytes =
  | { readonly kind: '4bit'; readonly quantType: FourBitType | undefined; readonly doubleQuant: boolean | undefined }
  | { readonly kind: '8bit' }

// Only what says how weights are stored: which linear layers are quantized shows in the tensors.
const schema = z.object({
  quant_method: z.string().nullish(),
  load_in_4bit: z.boolean().nullish(),
  _load_in_4bit: z.boolean().nullish(),
  load_in_8bit: z.boolean().nullish(),
  _load_in_8bit: z.boolean().nullish(),
  bnb_4bit_quant_type: z.string().nullish(),
  bnb_4bit_use_double_quant: z.boolean().nullish(),
})

type Refuse = (message: string, hint?: string) => never

/** What to do about weights that are quantized in a way that is not supported. */
export const useFloats =
  'Use a checkpoint of the model in F32, F16 or BF16; with method qlora, loadIn4bit or loadIn8bit it is quantized as it is read.'

/** Checks `quantization_config` of a config.json (`BitsAndBytesConfig` of transformers). */
export function parseQuantizationConfig(json: unknown, refuse: Refuse): PromisedQuantization | undefined {
  if (json === undefined || json === null) return undefined
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${['', ...path].join('.')}: ${message}`)
    return refuse(`quantization_config${problems.join('; ')}`, 'transformers writes it beside the quantized weights.')
  }
  const c = parsed.data
  const method = c.quant_method ?? 'bitsandbytes'
  if (method === 'fp8') return parseFp8Config(json, refuse)
  if (method !== 'bitsandbytes') {
    refuse(
      `weights quantized by ${JSON.stringify(method)} are not supported, only those of "bitsandbytes" and "fp8"`,
      useFloats,
    )
  }
  const [fourBit, eightBit] = [c.load_in_4bit ?? c._load_in_4bit ?? false, c.load_in_8bit ?? c._load_in_8bit ?? false]
  if (fourBit === eightBit) {
    refuse(
      `quantization_config: load_in_4bit and load_in_8bit are both ${fourBit}, one must be true`,
      fourBit ? 'Save the model again.' : 'Remove quantization_config from the file if the weights are not quantized.',
    )
  }
  if (eightBit) return { kind: '8bit' }
  const { bnb_4bit_quant_type: type, bnb_4bit_use_double_quant: doubleQuant } = c
  if (type !== undefined && type !== null && type !== 'nf4' && type !== 'fp4') {
    return refuse(
      `quantization_config.bnb_4bit_quant_type: found ${JSON.stringify(type)}, expected nf4 or fp4`,
      useFloats,
    )
  }
  return { kind: '4bit', quantType: type ?? undefined, doubleQuant: doubleQuant ?? undefined }
}

/**
 * The text of a config.json for the same model with its linear layers quantized: with `quantization_config` as transformers writes it.
 * Lowrank computes in f32, and so will transformers unless it is asked for something else; the block size is stored with each weight.
 * `floats`: modules whose linear layers are not quantized either, beside the head.
 */
export function withQuantizationConfig(
  text: string,
  quantization: Quantization,
  { floats = [] }: { readonly floats?: readonly string[] } = {},
): string {
  const fourBit = quantization.kind === '4bit' ? quantization : undefined
  const config = {
    _load_in_4bit: fourBit !== undefined,
    _load_in_8bit: fourBit === undefined,
    bnb_4bit_compute_dtype: 'float32',
    bnb_4bit_quant_storage: 'uint8',
    bnb_4bit_quant_type: fourBit?.quantType ?? 'fp4',
    bnb_4bit_use_double_quant: fourBit?.doubleQuant ?? false,
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    // By default transformers leaves out the head alone.
    llm_int8_skip_modules: floats.length === 0 ? null : ['lm_head', ...floats],
    llm_int8_threshold: 6,
    load_in_4bit: fourBit !== undefined,
    load_in_8bit: fourBit === undefined,
    quant_method: 'bitsandbytes',
  }
  // transformers insists on a Python float, which JSON.stringify has no spelling for.
  return editJson(text, { quantization_config: config }).replace(
    '"llm_int8_threshold": 6,',
    '"llm_int8_threshold": 6.0,',
  )
}
