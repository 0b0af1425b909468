import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { readJsonObject } from '../formats/json.ts'
import { readSmallFiles } from '../formats/model-folder.ts'
import { readAdapterWeight } from '../model/peft/adapt.ts'
import { type Adapter, configName, readAdapter, writeAdapter } from '../model/peft/adapter.ts'
import { cardName } from '../model/peft/card.ts'
import { tokenizerFiles } from '../text/tokenizer.ts'
import { bytesOf, bytesToF32, f32ToBytes, indexOfOverflow, type FloatDtype } from '../util/dtype.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import type { Checked, Exporter, ExportInput } from './exporter.ts'
import { compareLogits, probeLogits } from './probe.ts'

/** The adapter as PEFT writes it, without what a run leaves beside it. */
export const peft: Exporter = {
  makes: 'folder',
  needs: ['adapter'],
  dtypes: ['f32', 'f16', 'bf16'],
  write: async (input, folder) => {
    const from = adapterOf(input)
    const adapter = await readAdapter(from)
    try {
      const tensors = []
      for (const name of adapter.tensors.tensors.keys()) tensors.push(await tensorOf(adapter, name, from))
      const dtype = dtypeFor(input)
      for (const { name, data } of tensors) {
        const large = indexOfOverflow(data, dtype)
        if (large === -1) continue
        throw new LowrankError('config', `dtype: ${data[large]} of ${name} is too large for ${dtype}`, {
          hint: 'Take bf16 or f32, which hold larger numbers.',
        })
      }
      input.report(`writing ${tensors.length} tensors`)
      const small = await readSmallFiles(from, [...tokenizerFiles, cardName])
      const files = new Map([...small.files].filter(([name]) => name !== cardName))
      const card = small.files.get(cardName)
      const base = await baseOf(input, from)
      await writeAdapter({
        folder,
        config: adapter.config,
        base,
        tensors,
        dtype,
        files,
        card: card && Buffer.from(card).toString('utf8'),
      })
      const names = (await readdir(folder)).sort()
      const sized = names.map(async (name) => ({ name, bytes: (await stat(join(folder, name))).size }))
      return { files: await Promise.all(sized), notes: small.leftOut }
    } finally {
      await adapter.tensors.close()
    }
  },
  check: checkPeft,
}

function adapterOf({ adapter }: ExportInput): string {
  if (adapter === undefined) throw internalError('an export without the adapter that it needs')
  return adapter
}

/** The base as the adapter names it, with its revision. */
async function baseOf({ base }: ExportInput, folder: string): Promise<ExportInput['base']> {
  const { revision } = await readJsonObject(join(folder, configName), { code: 'adapter' })
  return typeof revision === 'string' ? { ...base, revision } : base
}

async function tensorOf({ tensors }: Adapter, name: string, folder: string) {
  const shape = tensors.tensors.get(name)?.shape ?? []
  return { name, shape, data: (await readAdapterWeight(tensors, { name, shape, folder })).data }
}

function dtypeFor({ dtype }: ExportInput): FloatDtype {
  return dtype === 'f16' ? 'F16' : dtype === 'bf16' ? 'BF16' : 'F32'
}

/** Reads the adapter again: every tensor as its dtype rounds it, and with its base, where that is known, the logits. */
async function checkPeft(input: ExportInput, folder: string): Promise<Checked> {
  const { model, quantization, threads, cancelled, report } = input
  const [from, dtype] = [adapterOf(input), dtypeFor(input)]
  report('checking: every tensor')
  const [given, found] = [await readAdapter(from), await readAdapter(folder)]
  try {
    const names = [...given.tensors.tensors.keys()]
    for (const name of names) {
      const [wanted, own] = [await tensorOf(given, name, from), await tensorOf(found, name, folder)]
      const rounded = bytesToF32(f32ToBytes(wanted.data, dtype), dtype)
      if (Buffer.compare(bytesOf(rounded), bytesOf(own.data)) === 0) continue
      throw internalError(`${folder}: ${name} was written as something else`)
    }
    if (found.tensors.tensors.size !== names.length) throw internalError(`${folder} has other tensors than ${from}`)
    if (model === undefined) return { tensors: names.length }
    report('checking: logits')
    const shared = { model, quantization, threads, cancelled }
    const { largestLogit, ...logits } = compareLogits(
      await probeLogits({ ...shared, adapter: from }),
      await probeLogits({ ...shared, adapter: folder }),
    )
    const most = dtype === 'F32' ? 0 : 0.05 * largestLogit
    if (!(logits.largestDifference <= most)) {
      throw internalError(`${folder} computes something else: logits differ by up to ${logits.largestDifference}`)
    }
    return { tensors: names.length, logits }
  } finally {
    await given.tensors.close()
    await found.tensors.close()
  }
}
