import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { modelTensors } from '../../src/export/gguf/tensors.ts'
import { architectureFor, architectures, ggufName, hubName } from '../../src/formats/gguf/architectures.ts'
import { writtenConfig } from '../../src/formats/gguf/config.ts'
import { GgufFile } from '../../src/formats/gguf/file.ts'
import { writeGguf } from '../../src/formats/gguf/write.ts'
import { parseDecoderConfig } from '../../src/model/config.ts'
import { families } from '../../src/model/families/index.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { bytesOf } from '../../src/util/dtype.ts'

/*
 * The files that the converter of llama.cpp makes of hub models (see make_gguf_families.py), written by Lowrank of the same models: the same
 * metadata of the architecture, and the same tensors, byte for byte.
 */

const folder = fileURLToPath(new URL('gguf', import.meta.url))
const golden = JSON.parse(await readFile(join(folder, 'families.json'), 'utf8')) as Readonly<
  Record<string, { readonly config: Readonly<Record<string, unknown>> }>
>
const out = await mkdtemp(join(tmpdir(), 'lowrank-gguf-'))
afterAll(() => rm(out, { recursive: true }))

test('every family has an architecture', () => {
  const without = Object.keys(families).filter((family) => architectureFor(family) === undefined)
  expect(without).toEqual([])
})

test.each(Object.keys(architectures))('%s: names of tensors lead back to themselves', (name) => {
  const architecture = architectures[name]!
  const modules = ['attn_norm', 'attn_q', 'attn_qkv', 'ffn_norm', 'ffn_up', 'post_ffw_norm', 'attn_q_norm']
  const tensors = [...modules.map((module) => `blk.7.${module}.weight`), 'token_embd.weight', 'output_norm.weight']
  const known = tensors.flatMap((tensor) => hubName(architecture, tensor) ?? [])
  expect(known.length).toBeGreaterThan(5)
  for (const weight of known) expect(hubName(architecture, ggufName(architecture, weight) ?? '')).toBe(weight)
})

describe.each(Object.entries(golden))('%s', (name, { config: json }) => {
  test('is what the converter makes of it', async () => {
    const theirs = await GgufFile.open(join(folder, `${name}.gguf`))
    // Weights are those of the file, which is read elsewhere as the hub has them.
    const source = await openWeights(theirs.path)
    const written = writtenConfig(parseDecoderConfig(json, 'config.json'))!
    const lists = Object.entries(written.tensors).map(([tensor, values]) => ({
      name: tensor,
      type: 'F32',
      shape: [values.length],
      data: (write: (bytes: Uint8Array) => Promise<void>) => write(bytesOf(Float32Array.from(values))),
    }))
    const options = { architecture: written.architecture, dtype: 'f32', step: () => undefined } as const
    const path = join(out, `${name}.gguf`)
    await writeGguf(path, { metadata: written.metadata, tensors: [...modelTensors(source, options), ...lists] })
    const ours = await GgufFile.open(path)

    expect([...ours.tensors.keys()].sort()).toEqual([...theirs.tensors.keys()].sort())
    for (const [tensor, { shape, type }] of theirs.tensors) {
      expect(ours.tensors.get(tensor)).toMatchObject({ shape, type })
      const [found, wanted] = [await ours.read(tensor), await theirs.read(tensor)]
      // Norms of Gemma were rounded when 1 was added, and lists of factors as f32 computes them.
      if (tensor.endsWith('norm.weight') || tensor.startsWith('rope')) {
        const [a, b] = [new Float32Array(found.buffer), new Float32Array(wanted.buffer)]
        a.forEach((value, i) => expect(Math.abs(value - b[i]!), tensor).toBeLessThanOrEqual(1e-6 * Math.abs(b[i]!)))
      } else expect(Buffer.compare(found, wanted), tensor).toBe(0)
    }
    const own = theirs.metadata.keys.filter((key) => key.startsWith(`${written.name}.`))
    expect(own.length).toBeGreaterThan(6)
    for (const key of own) {
      const [found, wanted] = [ours.metadata.get(key), theirs.metadata.get(key)]
      if (typeof wanted === 'number') expect(Math.abs(Number(found) - wanted), key).toBeLessThanOrEqual(1e-6 * wanted)
      else expect(found, key).toEqual(wanted)
    }
    await Promise.all([source.close(), ours.close(), theirs.close()])
  })
})
