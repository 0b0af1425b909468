import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { JsonObject } from '../../src/formats/json.ts'
import { type TensorSource, writeSafetensors } from '../../src/formats/safetensors.ts'
import type { Example } from '../../src/text/example.ts'
import { elements } from '../../src/util/shape.ts'
import { uniform } from './uniform.ts'

/*
 * The tiny models of every family that `make_family_golden.py` made golden values of.
 */

export const folder = fileURLToPath(new URL('families', import.meta.url))

export type Shapes = readonly (readonly [name: string, shape: readonly number[]])[]

export interface Golden {
  readonly config: JsonObject & { readonly model_type: string }
  readonly tensors: Shapes
  readonly adapter: Shapes
  readonly examples: readonly (readonly [ids: readonly number[], labels: number])[]
  readonly losses: { readonly base: number; readonly adapter: number }
  readonly learningRate: number
  readonly curve: readonly number[]
}

/** The values that the script has given a tensor. */
function valueOf(name: string, shape: readonly number[], salt: number, offset: number): TensorSource {
  const root = Math.fround(Math.sqrt(shape[1] ?? 1))
  const scaled = (x: number): number => {
    if (name.endsWith('norm.weight')) return offset + 0.6 * x
    if (/bias$|embed_tokens|lm_head/.test(name)) return 0.8 * x
    if (name.includes('.lora_')) return ((name.includes('lora_A') ? 3 : 1) * x) / root
    return (5 * x) / root
  }
  const data = Float32Array.from({ length: elements(shape) }, (_, i) => scaled(uniform(i, salt)))
  return { name, dtype: 'F32', shape, data: async () => new Uint8Array(data.buffer) }
}

export async function writeTensors(path: string, shapes: Shapes, salt: number, offset: number): Promise<void> {
  const sources = shapes.map(([name, shape], i) => valueOf(name, shape, salt + i, offset))
  await writeSafetensors(path, sources, { format: 'pt' })
}

export const cases = (await readdir(folder)).filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -5))

export async function readGolden(name: string): Promise<Golden> {
  return JSON.parse(await readFile(join(folder, `${name}.json`), 'utf8')) as Golden
}

/** Writes the model and the adapter of a case. */
export async function writeModel(name: string, model: string): Promise<{ golden: Golden; examples: Example[] }> {
  const golden = await readGolden(name)
  await writeFile(join(model, 'config.json'), JSON.stringify(golden.config))
  const offset = golden.config.model_type.startsWith('gemma') ? 0 : 1
  await writeTensors(join(model, 'model.safetensors'), golden.tensors, 1, offset)
  await mkdir(join(model, 'adapter'))
  const adapter = { peft_type: 'LORA', task_type: 'CAUSAL_LM', r: 2, lora_alpha: 4, target_modules: 'all-linear' }
  await writeFile(join(model, 'adapter', 'adapter_config.json'), JSON.stringify(adapter))
  await writeTensors(join(model, 'adapter', 'adapter_model.safetensors'), golden.adapter, 500, offset)
  const examples = golden.examples.map(([ids, labels], line) => ({
    ids: Int32Array.from(ids),
    labelMask: Uint8Array.from(ids, (_, i) => (i < ids.length - labels ? 0 : 1)),
    line,
  }))
  return { golden, examples }
}
