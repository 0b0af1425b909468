import { basename } from 'node:path'
import { GgufFile } from '../../formats/gguf/file.ts'
import { reorderRows } from '../../formats/gguf/rows.ts'
import { type GgufTensorSource, writeGguf } from '../../formats/gguf/write.ts'
import { bytesOf } from '../../util/dtype.ts'
import { internalError } from '../../util/errors.ts'
import type { Exporter, ExportInput } from '../exporter.ts'
import { type LoraPair, type LoraPairs, loraPairs, mostCommon, timesFactor } from '../lora-modules.ts'
import { describedBy, neededModel } from './model.ts'
import { decode, encode, headsOf, tensorName, type TensorType } from './tensors.ts'

/**
 * The adapter alone, for the GGUF of its base: as `convert_lora_to_gguf.py` of llama.cpp writes it, apart from what that passes over: rsLoRA
 * and patterns of ranks and alphas.
 */
export const ggufLora: Exporter = {
  makes: 'file',
  needs: ['model', 'adapter'],
  dtypes: ['f32', 'f16'],
  extension: '.gguf',
  write: async (input, path) => {
    const lora = await loraPairs(input, 'a GGUF adapter')
    const { name } = describedBy(lora.config, neededModel(input))
    const tensors = tensorsOf(input, lora).flatMap(({ a, b }): GgufTensorSource[] => [a, b])
    input.report(`writing ${tensors.length} tensors`)
    const bytes = await writeGguf(path, {
      metadata: {
        'general.architecture': ['text', name],
        'general.type': ['text', 'adapter'],
        'general.name': ['text', input.name],
        'general.file_type': ['u32', input.dtype === 'f16' ? 1 : 0],
        'adapter.type': ['text', 'lora'],
        'adapter.lora.alpha': ['f32', alphaOf(lora.pairs)],
      },
      tensors,
    })
    return {
      files: [{ name: basename(path), bytes }],
      notes: input.quantization === undefined ? [] : [heldNote],
    }
  },
  check: checkLora,
}

const heldNote =
  'the adapter was trained on a quantized base: on the GGUF of another one it computes something else than in training'

/** One number for all: each layer is multiplied by this over its rank. */
function alphaOf(pairs: readonly LoraPair[]): number {
  return Math.fround(mostCommon(pairs.map(({ scale, r }) => scale * r)))
}

interface WrittenPair {
  readonly a: GgufTensorSource
  readonly b: GgufTensorSource
  readonly pair: LoraPair
  /** B is stored times this. */
  readonly factor: number
  readonly heads: number
}

function tensorsOf(input: ExportInput, { config, pairs }: LoraPairs): WrittenPair[] {
  const { architecture } = describedBy(config, neededModel(input))
  const alpha = alphaOf(pairs)
  const type = typeFor(input)
  return pairs.map((pair) => {
    const { path, r, scale, inner, out } = pair
    const name = tensorName(architecture, config, `${path}.weight`)
    // What rounding the one alpha to f32 loses is not worth to round all numbers of B for.
    const exact = (scale * r) / alpha
    const factor = Math.abs(exact - 1) < 1e-7 ? 1 : exact
    const heads = headsOf(architecture, config, name)
    const bytesOfB = (): Uint8Array => {
      const bytes = Uint8Array.from(encode(timesFactor(pair.b, factor), { type, weight: `${path}.lora_B` }))
      if (heads > 0) reorderRows(bytes, out, heads, 'file')
      return bytes
    }
    return {
      pair,
      factor,
      heads,
      a: {
        name: `${name}.lora_a`,
        type,
        shape: [r, inner],
        data: (write) => write(encode(pair.a, { type, weight: `${path}.lora_A` })),
      },
      b: { name: `${name}.lora_b`, type, shape: [out, r], data: (write) => write(bytesOfB()) },
    }
  })
}

function typeFor({ dtype }: ExportInput): TensorType {
  return dtype === 'f16' ? 'F16' : 'F32'
}

/** Reads the file, undoes what was done to its rows, and compares A, and (alpha / r) B with scale B. */
async function checkLora(input: ExportInput, path: string): Promise<{ readonly tensors: number }> {
  input.report('checking: every tensor')
  const lora = await loraPairs(input, 'a GGUF adapter')
  const file = await GgufFile.open(path)
  try {
    const wrong = (what: string): never => {
      throw internalError(`${path}: ${what} was written as something else`)
    }
    const alpha = file.metadata.number('adapter.lora.alpha') ?? wrong('adapter.lora.alpha')
    const type = typeFor(input)
    const written = tensorsOf(input, lora)
    for (const { a, b, pair, heads } of written) {
      const [foundA, bytes] = [decode(await file.read(a.name), type), await file.read(b.name)]
      if (heads > 0) reorderRows(bytes, pair.out, heads, 'hub')
      const foundB = decode(bytes, type)
      const wantedA = decode(encode(pair.a, { type, weight: a.name }), type)
      if (Buffer.compare(bytesOf(foundA), bytesOf(wantedA)) !== 0) wrong(a.name)
      const by = alpha / pair.r
      // As far as the type rounds.
      const most = type === 'F16' ? 2 ** -10 : 2 ** -21
      const other = pair.b.findIndex((value, i) => {
        const wanted = value * pair.scale
        return !(Math.abs(foundB[i]! * by - wanted) <= most * Math.abs(wanted) + (type === 'F16' ? by * 2 ** -24 : 0))
      })
      if (other !== -1) wrong(b.name)
    }
    if (file.tensors.size !== 2 * written.length) wrong('the list of tensors')
    return { tensors: file.tensors.size }
  } finally {
    await file.close()
  }
}
