import { z } from 'zod'
import { option } from '../fields.ts'

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
