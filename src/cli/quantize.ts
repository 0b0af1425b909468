import { parseQuantizeConfig, quantizationOf, quantizationText, readQuantizeConfig } from '../config/index.ts'
import type { Invocation } from './io.ts'
import { quantizeText } from './render.ts'

/** `lowrank quantize`: a model folder, quantized into another one. */
export async function quantization({ sources, json, io, signal, loadApi }: Invocation): Promise<void> {
  const config = readQuantizeConfig(sources)
  const how = quantizationOf(parseQuantizeConfig(config))
  const { quantize } = await loadApi()
  io.stderr.write(`quantizing ${config.model}: ${quantizationText(how)}\n`)
  const result = await quantize(config, { signal })
  const { outputDir, bytes, tensors, seconds } = result
  const line = json
    ? JSON.stringify({ outputDir, bytes, tensors, seconds, quantization: how })
    : quantizeText(result, how)
  io.stdout.write(`${line}\n`)
}
