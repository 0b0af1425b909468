import { z } from 'zod'
import { parseJson } from '../../formats/json.ts'
import type { TensorReader } from '../../formats/safetensors.ts'
import { dynamicMap } from '../../storage/blockwise.ts'
import {
  fourBitBlockSizes,
  fourBitTables,
  nestedBlockSize,
  type FourBit,
  type FourBitFormat,
  type FourBitType,
} from '../../storage/fourbit.ts'
import { isStored, type FourBitWeight, type StoredWeight } from '../../storage/stored.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'
import { badPart, checkPart, checkScales, readBytes, readFloats, type QuantizedSpec } from './parts.ts'
import { elements } from '../../util/shape.ts'

/** A weight in 4 bits as bitsandbytes saves it, its description checked; `load` as in `WeightSource`. */
interface FourBitEntry {
  readonly format: FourBitFormat
  readonly load: (reuse?: StoredWeight) => Promise<FourBitWeight>
}

/** Start of the name of the tensor that describes a weight in JSON; the type follows. */
export const quantStateKey = 'quant_state.bitsandbytes__'

/** The JSON takes about 200 bytes. */
const maxStateBytes = 4096

/** `quant_state`, without and with double quantization. */
const stateSchema = z.object({
  quant_type: z.enum(['nf4', 'fp4']),
  blocksize: z.literal(fourBitBlockSizes as number[]),
  shape: z.array(z.int().min(1)).max(4),
})
const nestedSchema = stateSchema.extend({
  nested_blocksize: z.literal(nestedBlockSize),
  nested_dtype: z.literal('float32'),
  nested_offset: z.number().refine((offset) => Number.isFinite(Math.fround(offset)), 'expected a number of f32'),
})

/** Checks the parts of a weight and reads what describes it: all but codes and scales. */
export async function openFourBit(reader: TensorReader, spec: QuantizedSpec): Promise<FourBitEntry> {
  const { name, shape } = spec
  const count = elements(shape)
  const stateName = findState(reader, name)
  const doubleQuant = reader.tensors.has(`${name}.nested_absmax`)
  const state = await readState(reader, stateName, doubleQuant)
  if (!stateName.endsWith(`__${state.quant_type}`)) {
    throw badPart(reader, stateName, `quant_type ${state.quant_type}`, 'that of its name')
  }
  if (state.shape.join() !== shape.join()) {
    throw badPart(
      reader,
      stateName,
      `shape [${state.shape.join(', ')}]`,
      `[${shape.join(', ')}], as config.json has it`,
    )
  }
  const { quant_type: quantType, blocksize: blockSize } = state
  const blocks = Math.ceil(count / blockSize)
  checkCodes(reader, name, Math.ceil(count / 2))
  const what = `a scale for each ${blockSize} of ${count} weights (the blocksize of ${stateName})`
  checkPart(reader, name, { name: `${name}.absmax`, dtype: doubleQuant ? 'U8' : 'F32', elements: blocks, what })
  if (doubleQuant) {
    const elements = Math.ceil(blocks / nestedBlockSize)
    const of = `a scale for each ${nestedBlockSize} of ${blocks} scales`
    checkPart(reader, name, { name: `${name}.nested_absmax`, dtype: 'F32', elements, what: of })
  }
  await checkTable(reader, name, quantType)
  const map = doubleQuant ? await readMap(reader, name) : undefined
  const nested = map && { map, offset: Math.fround(state.nested_offset) }

  const storage = { kind: '4bit', quantType, blockSize, doubleQuant } as const
  let checked = false
  return {
    format: { quantType, blockSize, doubleQuant },
    load: async (reuse) => {
      const old = reusable(reuse, { quantType, blockSize, count, doubleQuant })
      const [codes, absmax, own] = await Promise.all([
        readBytes(reader, name, old?.codes),
        readFloats(reader, doubleQuant ? `${name}.nested_absmax` : `${name}.absmax`, old?.scales.absmax),
        nested && readBytes(reader, `${name}.absmax`, old && 'codes' in old.scales ? old.scales.codes : undefined),
      ])
      if (!checked) checkScales(reader, doubleQuant ? `${name}.nested_absmax` : `${name}.absmax`, absmax)
      checked = true
      const scales = nested && own ? { ...nested, codes: own, absmax } : { absmax }
      return { storage, shape, packed: { quantType, blockSize, count, codes, scales } }
    },
  }
}

/** What of a weight loaded before has the size and form of one to be loaded. */
function reusable(
  reuse: StoredWeight | undefined,
  form: FourBitFormat & { readonly count: number },
): FourBit | undefined {
  if (reuse === undefined || !isStored(reuse, '4bit')) return undefined
  const { packed } = reuse
  const same =
    packed.quantType === form.quantType &&
    packed.blockSize === form.blockSize &&
    packed.count === form.count &&
    'codes' in packed.scales === form.doubleQuant
  return same ? packed : undefined
}

function findState(reader: TensorReader, weight: string): string {
  for (const type of Object.keys(fourBitTables)) {
    const name = `${weight}.${quantStateKey}${type}`
    if (reader.tensors.has(name)) return name
  }
  const other = [...reader.tensors.keys()].find((name) => name.startsWith(`${weight}.quant_state.`))
  const file = reader.tensors.get(weight)?.file ?? ''
  throw new LowrankError(
    'model',
    `${file}: tensor ${weight}.${quantStateKey}nf4 (or fp4), which describes ${weight}, is missing` +
      (other === undefined ? '' : `; found ${other}`),
    { hint: 'Only nf4 and fp4 are supported, in the layout that bitsandbytes 0.41 and later save.' },
  )
}

type State = z.infer<typeof stateSchema> & { readonly nested_offset: number }

async function readState(reader: TensorReader, name: string, doubleQuant: boolean): Promise<State> {
  const info = reader.tensors.get(name)
  if (info?.dtype !== 'U8' || info.byteLength > maxStateBytes) {
    throw badPart(
      reader,
      name,
      `${info?.dtype} of ${info?.byteLength} bytes`,
      `JSON in U8, at most ${maxStateBytes} bytes`,
    )
  }
  const bytes = await reader.read(name)
  let json: unknown
  try {
    json = parseJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw badPart(reader, name, `what is not JSON (${messageOf(error)})`, 'a JSON object')
  }
  const parsed = doubleQuant ? nestedSchema.safeParse(json) : stateSchema.safeParse(json)
  if (parsed.success) return { nested_offset: 0, ...parsed.data }
  const [issue] = parsed.error.issues
  const key = String(issue?.path[0] ?? '')
  const found = JSON.stringify((json as Record<string, unknown> | null)?.[key]) ?? 'nothing'
  throw badPart(reader, name, `${key} ${found.slice(0, 80)}`, issue?.message ?? '')
}

/** Two codes a byte, whatever dtype the bytes go by (`bnb_4bit_quant_storage`). */
function checkCodes(reader: TensorReader, name: string, bytes: number): void {
  const info = reader.tensors.get(name)
  if (info?.byteLength === bytes) return
  const found = info === undefined ? 'nothing' : `${info.dtype} [${info.shape.join(', ')}], ${info.byteLength} bytes`
  throw badPart(reader, name, found, `${bytes} bytes, two weights in each, for the shape in config.json`)
}

async function checkTable(reader: TensorReader, weight: string, quantType: FourBitType): Promise<void> {
  const name = `${weight}.quant_map`
  checkPart(reader, weight, { name, dtype: 'F32', elements: 16, what: 'the numbers of the 16 codes' })
  const found = await readFloats(reader, name)
  const index = fourBitTables[quantType].findIndex((value, code) => value !== found[code])
  if (index === -1) return
  throw badPart(
    reader,
    name,
    `${found[index]} for code ${index}`,
    `${fourBitTables[quantType][index]}, as ${quantType} has it`,
  )
}

/** The numbers of the codes of scales: the map of bitsandbytes, of which versions differ in the last bit of some. */
async function readMap(reader: TensorReader, weight: string): Promise<Float32Array> {
  const name = `${weight}.nested_quant_map`
  checkPart(reader, weight, { name, dtype: 'F32', elements: 256, what: 'the numbers of the codes of scales' })
  const found = await readFloats(reader, name)
  const known = dynamicMap(true)
  const index = known.findIndex((value, code) => !(Math.abs(value - found[code]!) <= 1e-6 * Math.abs(value)))
  if (index !== -1) throw badPart(reader, name, `${found[index]} for code ${index}`, `${known[index]}, the dynamic map`)
  return known.every((value, code) => value === found[code]) ? known : found
}
