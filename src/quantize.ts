import type { QuantizeConfig } from './config.ts'
import { internalError } from './util/errors.ts'

/** What `quantize` has written. */
export interface QuantizeResult {
  readonly outputDir: string
  /** Of the weights. */
  readonly bytes: number
  /** Tensors written, those that describe a quantized weight included. */
  readonly tensors: number
  readonly seconds: number
}

/** Quantizes a model folder into another one, in the layout of bitsandbytes, as transformers saves and loads it. */
export function runQuantize(config: QuantizeConfig, cancelled: () => boolean): Promise<QuantizeResult> {
  return Promise.reject(internalError(`quantizing ${config.model} is not there yet${cancelled() ? '; cancelled' : ''}`))
}
