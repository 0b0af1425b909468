import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { architectures } from '../../src/formats/gguf/architectures.ts'
import { configOf } from '../../src/formats/gguf/config.ts'
import { GgufFile } from '../../src/formats/gguf/file.ts'
import { parseDecoderConfig } from '../../src/model/config.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { widened } from '../../src/storage/formats.ts'
import { elements } from '../../src/util/shape.ts'
import { uniform } from './uniform.ts'

/*
 * A GGUF of every architecture, made by the converter of llama.cpp (see make_gguf_families.py): what is read of it is the hub model that it
 * was made from.
 */

const folder = fileURLToPath(new URL('gguf', import.meta.url))

type Shapes = readonly (readonly [name: string, shape: readonly number[]])[]
const golden = JSON.parse(await readFile(join(folder, 'families.json'), 'utf8')) as Readonly<
  Record<string, { readonly config: Readonly<Record<string, unknown>>; readonly tensors: Shapes }>
>

test('every architecture has a file', async () => {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.gguf'))
  expect(files.map((name) => name.slice(0, -5)).sort()).toEqual(Object.keys(golden).sort())
  const types = Object.values(golden).map(({ config }) => config['model_type'])
  // Mistral has the architecture of Llama.
  const known = Object.values(architectures).map(({ modelType }) => modelType)
  expect(new Set(types)).toEqual(new Set([...known, 'mistral']))
})

/** The value that the script has given a weight, as `fill` of make_family_golden.py does. */
function valuesOf(name: string, shape: readonly number[], salt: number, offset: number): Float32Array {
  const root = Math.fround(Math.sqrt(shape[1] ?? 1))
  return Float32Array.from({ length: elements(shape) }, (_, i) => {
    const x = uniform(i, salt)
    if (name.endsWith('norm.weight')) return offset + Math.fround(Math.fround(0.6) * x)
    if (/bias$|embed_tokens|lm_head/.test(name)) return Math.fround(0.8) * x
    return Math.fround(5 * x) / root
  })
}

describe.each(Object.entries(golden))('%s', (name, { config, tensors }) => {
  test('its weights are those of the model', async () => {
    const source = await openWeights(join(folder, `${name}.gguf`))
    const gemma = String(config['model_type']).startsWith('gemma')
    expect(source.specs.map((spec) => spec.name).sort()).toEqual(tensors.map(([tensor]) => tensor))
    for (const [i, [tensor, shape]] of tensors.entries()) {
      const { data } = widened(await source.load(tensor))
      const wanted = valuesOf(tensor, shape, 1 + i, gemma ? 0 : 1)
      // The converter adds 1 to the norms of Gemma, which rounds them.
      if (gemma && tensor.endsWith('norm.weight')) {
        for (let at = 0; at < wanted.length; at++) wanted[at] = Math.fround(1 + wanted[at]!) - 1
      }
      expect(data, tensor).toEqual(wanted)
    }
    await source.close()
  })

  test('its configuration computes the same', async () => {
    const file = await GgufFile.open(join(folder, `${name}.gguf`))
    const found = parseDecoderConfig(await configOf(file), file.path)
    await file.close()
    const wanted = parseDecoderConfig(config, 'config.json')
    const modelType = wanted.modelType === 'mistral' ? 'llama' : wanted.modelType
    // How random weights are drawn is not in the file.
    expect(found).toEqual({ ...wanted, modelType, initializerRange: found.initializerRange })
  })
})
