import { z } from 'zod'
import { option, unset } from '../fields.ts'

/** As in transformers' `BitsAndBytesConfig`; what is unset follows from the method, in `quantization.ts`. */
export const quantization = {
  loadIn4bit: option(z.boolean().optional(), {
    group: 'Quantization',
    description: "Quantize the base model's linear layers to 4 bits a weight",
    unset: 'with method qlora, unless load-in-8bit',
  }),
  loadIn8bit: option(z.boolean().default(false), {
    group: 'Quantization',
    description: "Quantize the base model's linear layers to 8 bits a weight",
  }),
  bnb4bitQuantType: option(z.enum(['nf4', 'fp4']).optional(), {
    group: 'Quantization',
    description: 'The 16 values of 4 bits: normal float, or float',
    unset: 'nf4 with method qlora, else fp4',
  }),
  bnb4bitUseDoubleQuant: option(z.boolean().optional(), {
    group: 'Quantization',
    description: 'Quantize the scales of the 4-bit blocks too',
    unset: 'with method qlora',
  }),
  // What bitsandbytes has kernels for.
  bnb4bitBlockSize: option(z.literal([32, 64, 128, 256, 512, 1024, 2048, 4096]).optional(), {
    group: 'Quantization',
    description: 'Weights that share a scale in 4 bits',
    unset: '64',
  }),
}

export const quantizationSchema = z.object(quantization)

/** The options that describe how a base model is quantized. */
export type QuantizationOptions = z.output<typeof quantizationSchema>

/** How the base is held where nothing is trained: as these say, else as the record beside the adapter says. */
export const heldBase = {
  /** The word that stands for a quantized base. */
  method: option(z.enum(['lora', 'qlora', 'full']).optional(), {
    group: 'Quantization',
    description: 'What was trained: qlora stands for a base in 4-bit NormalFloat with double quantization',
    unset: 'as the run.json beside the adapter says',
  }),
  ...quantization,
  loadIn4bit: unset(quantization.loadIn4bit, 'with method qlora, or as the run.json beside the adapter says'),
}
