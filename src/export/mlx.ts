import { join } from 'node:path'
import { writeFileAtomic } from '../formats/atomic.ts'
import { readJsonObject } from '../formats/json.ts'
import { openSafetensors, type TensorSource, writeSafetensors } from '../formats/safetensors.ts'
import { stat } from 'node:fs/promises'
import { bytesOf, bytesToF32, f32ToBytes, indexOfOverflow, type FloatDtype } from '../util/dtype.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import type { Exporter, ExportInput } from './exporter.ts'
import { type LoraPair, type LoraPairs, loraPairs, mostCommon, timesFactor } from './lora-modules.ts'

const [weightsFile, configFile] = ['adapters.safetensors', 'adapter_config.json'] as const

/** The adapter for mlx-lm: A and B transposed, one rank and one factor for all layers. */
export const mlx: Exporter = {
  makes: 'folder',
  needs: ['model', 'adapter'],
  dtypes: ['f32', 'f16', 'bf16'],
  write: async (input, folder) => {
    const lora = await loraPairs(input, 'an adapter of mlx-lm')
    const layout = layoutOf(lora)
    input.report(`writing ${2 * lora.pairs.length} tensors`)
    await writeSafetensors(join(folder, weightsFile), tensorsOf(lora, layout, dtypeFor(input)))
    await writeFileAtomic(join(folder, configFile), `${JSON.stringify(configOf(lora, layout), null, 4)}\n`)
    const files = [weightsFile, configFile].map(async (name) => ({
      name,
      bytes: (await stat(join(folder, name))).size,
    }))
    return { files: await Promise.all(files), notes: [] }
  },
  check: checkMlx,
}

interface Layout {
  readonly r: number
  readonly scale: number
  /** Layers from the last one down to the first that is adapted. */
  readonly layers: number
  /** Modules by their names within a layer, or in the whole model. */
  readonly keys: readonly string[]
}

/** mlx-lm has one rank and one factor: smaller ranks are filled up with zeros, and other factors go into B. */
function layoutOf({ config, pairs }: LoraPairs): Layout {
  const layered = pairs.map(({ path }) => /\.layers\.(\d+)\.(.+)$/.exec(path))
  const first = Math.min(...layered.map((found) => Number(found?.[1] ?? config.numHiddenLayers)))
  return {
    r: Math.max(...pairs.map(({ r }) => r)),
    scale: mostCommon(pairs.map(({ scale }) => scale)),
    layers: config.numHiddenLayers - first,
    keys: [...new Set(layered.map((found, i) => found?.[2] ?? pairs[i]?.path ?? ''))].sort(),
  }
}

function configOf({ dropout }: LoraPairs, { r, scale, layers, keys }: Layout): object {
  return {
    fine_tune_type: 'lora',
    num_layers: layers,
    lora_parameters: { rank: r, dropout, scale, keys },
  }
}

/** In mlx-lm the decoder of a model of texts and images is a model within it. */
function nameOf({ config }: LoraPairs, path: string): string {
  return config.trunk === 'model' ? path : path.replace(`${config.trunk}.`, 'language_model.model.')
}

function tensorsOf(lora: LoraPairs, layout: Layout, dtype: FloatDtype): TensorSource[] {
  return lora.pairs.flatMap((pair): TensorSource[] => {
    const { path, inner, out } = pair
    const { a, b } = transposedPair(pair, layout)
    const name = nameOf(lora, path)
    const bytes = (values: Float32Array, what: string) => (): Uint8Array => {
      const large = indexOfOverflow(values, dtype)
      if (large === -1) return f32ToBytes(values, dtype)
      throw new LowrankError('config', `dtype: ${values[large]} of ${path}.${what} is too large for ${dtype}`, {
        hint: 'Take bf16 or f32, which hold larger numbers.',
      })
    }
    return [
      { name: `${name}.lora_a`, dtype, shape: [inner, layout.r], data: bytes(a, 'lora_A') },
      { name: `${name}.lora_b`, dtype, shape: [layout.r, out], data: bytes(b, 'lora_B') },
    ]
  })
}

/** A [inner, r] and B [r, out]. */
function transposedPair(pair: LoraPair, { r, scale }: Layout): { readonly a: Float32Array; readonly b: Float32Array } {
  const { inner, out, r: own } = pair
  const a = new Float32Array(inner * r)
  for (let i = 0; i < own; i++) for (let j = 0; j < inner; j++) a[j * r + i] = pair.a[i * inner + j]!
  const scaled = timesFactor(pair.b, pair.scale / scale)
  const b = new Float32Array(r * out)
  for (let i = 0; i < out; i++) for (let j = 0; j < own; j++) b[j * out + i] = scaled[i * own + j]!
  return { a, b }
}

function dtypeFor({ dtype }: ExportInput): FloatDtype {
  return dtype === 'f16' ? 'F16' : dtype === 'bf16' ? 'BF16' : 'F32'
}

/** Reads the files and compares all tensors, and the factor and the modules that they are applied by. */
async function checkMlx(input: ExportInput, folder: string): Promise<{ readonly tensors: number }> {
  input.report('checking: every tensor')
  const lora = await loraPairs(input, 'an adapter of mlx-lm')
  const layout = layoutOf(lora)
  const dtype = dtypeFor(input)
  const wrong = (what: string): never => {
    throw internalError(`${folder}: ${what} was written as something else`)
  }
  const json = await readJsonObject(join(folder, configFile), { code: 'adapter' })
  if (JSON.stringify(json) !== JSON.stringify(configOf(lora, layout))) wrong(configFile)
  const reader = await openSafetensors(join(folder, weightsFile), { code: 'adapter' })
  try {
    for (const pair of lora.pairs) {
      const name = nameOf(lora, pair.path)
      const a = bytesToF32(await reader.read(`${name}.lora_a`), dtype)
      const b = bytesToF32(await reader.read(`${name}.lora_b`), dtype)
      const wanted = transposedPair(pair, layout)
      for (const [what, found, values] of [
        ['lora_a', a, wanted.a],
        ['lora_b', b, wanted.b],
      ] as const) {
        const rounded = bytesToF32(f32ToBytes(values, dtype), dtype)
        if (Buffer.compare(bytesOf(found), bytesOf(rounded)) !== 0) wrong(`${name}.${what}`)
      }
    }
    if (reader.tensors.size !== 2 * lora.pairs.length) wrong('the list of tensors')
    return { tensors: reader.tensors.size }
  } finally {
    await reader.close()
  }
}
