import { internalError } from '../../util/errors.ts'
import { type Exporter, type ExportInput, using } from '../exporter.ts'
import type { WeightSource } from '../../model/sources/source.ts'
import { checkOnnx } from './check.ts'
import { type OnnxDtype, type OnnxExport, onnxForms, writeOnnx } from './write.ts'

/** A whole model with its cache as an ONNX graph, for transformers.js in Node.js and browsers, and for onnxruntime-genai. */
export const onnx: Exporter = {
  makes: 'folder',
  needs: ['model'],
  dtypes: ['f32', 'f16', 'q8_0', 'q4_0'],
  write: async (input, folder) =>
    using(await input.weights(), (source) => {
      input.report('writing the graph and the weights')
      return writeOnnx(optionsOf(input, source), folder)
    }),
  check: async (input, folder) =>
    using(await input.weights(), (source) => checkOnnx({ ...input, ...optionsOf(input, source) }, folder)),
}

function optionsOf(input: ExportInput, source: WeightSource): OnnxExport {
  const { model, adapter, dtype, cancelled } = input
  if (model === undefined) throw internalError('an export without the model that it needs')
  if (!isOnnxDtype(dtype)) throw internalError(`onnx in ${dtype}`)
  return { source, model, adapter, dtype, cancelled }
}

function isOnnxDtype(dtype: string): dtype is OnnxDtype {
  return Object.hasOwn(onnxForms, dtype)
}
