import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { architectures } from '../../src/formats/gguf/architectures.ts'
import { configOf } from '../../src/formats/gguf/config.ts'
import { GgufFile } from '../../src/formats/gguf/file.ts'
import { parseDecoderConfig } from '../../src/model/config.ts'

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

describe.each(Object.entries(golden))('%s', (name, { config }) => {
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
