import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { resultNames, type ResultKind } from '../export/save.ts'
import { hashText } from '../formats/hash.ts'
import { claimOutputFolder, placesOf, recordNames, type ClaimOptions, type OutputFolder } from './output-folder.ts'

const root = mkdtempSync(join(tmpdir(), 'lowrank-output-'))
afterAll(() => rmSync(root, { recursive: true }))

let count = 0
/** A folder with these files, and the record of a run of ours that says this. */
function made(names: readonly string[], record?: object): string {
  const folder = join(root, String(++count))
  mkdirSync(folder)
  for (const name of names) writeFileSync(join(folder, name), name)
  const run = { versions: { lowrank: '1' }, ...record }
  if (record !== undefined) writeFileSync(join(folder, 'run.json'), JSON.stringify(run))
  return folder
}

/** What a run learns of its folder; undone at once. */
async function claim(folder: string, makes: ResultKind, options: Partial<ClaimOptions> = {}): Promise<OutputFolder> {
  const companions = new Map([['tokenizer.json', new Uint8Array()]])
  const writes = [...recordNames, ...resultNames(makes, { companions })]
  const before = readdirSync(folder)
  try {
    const output = await claimOutputFolder({ folder, makes, writes, reads: {}, overwrite: false, ...options })
    await output.release()
    return output
  } finally {
    expect(readdirSync(folder)).toEqual(before)
  }
}

const [lora, full] = [{ config: { method: 'lora' } }, { config: { method: 'full' } }]

describe('what is ours', () => {
  test('is what the record lists, whatever else is called as we call it', async () => {
    const files = ['run.json', 'adapter_config.json', 'adapter_model.safetensors']
    const folder = made([...files, 'tokenizer.json'], { ...lora, files })
    await expect(claim(folder, 'adapter')).rejects.toThrow(/holds what no run of Lowrank wrote: tokenizer.json$/)
    await expect(claim(folder, 'model')).rejects.toThrow(/wrote: tokenizer.json$/)
    rmSync(join(folder, 'tokenizer.json'))
    expect((await claim(folder, 'adapter')).removes.names).toEqual([])
    expect((await claim(folder, 'model')).removes).toEqual({ kind: 'adapter', names: files.slice(1) })
  })

  test.each(['model.safetensors', 'model.safetensors.index.json', 'config.json', 'model-00001-of-00002.safetensors'])(
    'is not %s beside an adapter: no model replaces it, and an adapter leaves it',
    async (name) => {
      const files = ['adapter_config.json']
      for (const record of [lora, { ...lora, files }]) {
        const folder = made([...files, name], record)
        await expect(claim(folder, 'model')).rejects.toThrow(`wrote: ${name}`)
        const { files: kept, removes } = await claim(folder, 'adapter')
        expect(kept).toEqual(['adapter_config.json', 'run.json'])
        expect(removes.names).toEqual([])
      }
    },
  )

  test('is a part of a model only by its number', async () => {
    const [ours, other] = ['model-00001-of-00002.safetensors', 'model-00002-of-00003.safetensors']
    const folder = made([ours, other], { ...full, files: [ours] })
    await expect(claim(folder, 'model')).rejects.toThrow(`wrote: ${other}`)
    expect((await claim(folder, 'adapter')).removes.names).toEqual([ours])
  })

  test('is, where an earlier version lists nothing, what a run of its kind writes', async () => {
    const adapter = ['adapter_config.json', 'adapter_model.safetensors', 'tokenizer.json', 'report.html']
    const model = ['config.json', 'generation_config.json', 'model-00001-of-00001.safetensors', 'tokenizer.json']
    expect((await claim(made(adapter, lora), 'model')).removes.names).toEqual(adapter.slice(0, 2))
    expect((await claim(made(model, full), 'adapter')).removes.names).toEqual(model.slice(0, 3))
    await claim(made(adapter, lora), 'adapter')
    await claim(made(model, full), 'model')
    for (const files of ['model.safetensors', [1, null], {}]) {
      const folder = made(['model.safetensors'], { ...full, files })
      await expect(claim(folder, 'model')).rejects.toThrow('wrote: model.safetensors')
    }
  })

  test('is a model card whose hash is recorded, also where the rest may be replaced', async () => {
    const folder = made(['README.md', 'adapter_config.json'], { ...lora, files: ['adapter_config.json', 'README.md'] })
    expect((await claim(folder, 'model', { overwrite: true })).removes.names).toEqual(['adapter_config.json'])
    expect(await claim(folder, 'adapter')).toMatchObject({ writesCard: false })
    const cards = [hashText('README.md')]
    const own = await claim(made(['README.md'], { ...lora, files: [], cards }), 'model')
    expect(own).toMatchObject({ writesCard: true, removes: { names: ['README.md'] } })
  })

  test('is no link of somebody, even one to nowhere, and no folder', async () => {
    const link = made([])
    symlinkSync('nowhere', join(link, 'tokenizer.json'))
    await expect(claim(link, 'adapter')).rejects.toThrow('wrote: tokenizer.json')
    await claim(link, 'adapter', { overwrite: true })
    const folder = made([])
    mkdirSync(join(folder, 'adapter_model.safetensors'))
    for (const overwrite of [false, true]) {
      const message = /there are folders instead of files: adapter_model.safetensors$/
      await expect(claim(folder, 'adapter', { overwrite })).rejects.toThrow(message)
    }
  })
})

describe('what a run reads', () => {
  /** A folder with an adapter, and this file, which the next run reads. */
  const holding = (name: string): string =>
    made([name, 'adapter_config.json'], { ...lora, files: [name, 'adapter_config.json'] })

  test.each(['run.json', 'metrics.jsonl', 'report.html', 'tokenizer.json', 'adapter_config.json'])(
    'is not replaced: %s',
    async (name) => {
      const folder = holding(name)
      const [link, chain] = [join(root, `link-${name}`), join(root, `chain-${name}`)]
      symlinkSync(join(folder, name), link)
      symlinkSync(link, chain)
      for (const configFile of [join(folder, name), join(folder, '..', String(count), name), link, chain]) {
        const message = `would replace ${name}, which it reads (configFile ${configFile})`
        for (const overwrite of [false, true]) {
          await expect(claim(folder, 'adapter', { reads: { configFile }, overwrite })).rejects.toThrow(message)
        }
      }
    },
  )

  test('is not removed with what is of the other kind', async () => {
    const folder = holding('adapter_config.json')
    const reads = { configFile: join(folder, 'adapter_config.json') }
    await expect(claim(folder, 'model', { reads })).rejects.toThrow('would remove adapter_config.json, which it reads')
  })

  test('is no link that would be replaced, wherever it leads', async () => {
    const folder = made([], { ...lora, files: [] })
    rmSync(join(folder, 'run.json'))
    const [target, link] = [join(root, 'mine.yaml'), join(root, 'to-link.yaml')]
    writeFileSync(target, '{}')
    symlinkSync(target, join(folder, 'metrics.jsonl'))
    symlinkSync(join(folder, 'metrics.jsonl'), link)
    for (const configFile of [join(folder, 'metrics.jsonl'), link]) {
      const message = 'would replace metrics.jsonl, which it reads (configFile'
      await expect(claim(folder, 'adapter', { reads: { configFile }, overwrite: true })).rejects.toThrow(message)
    }
    await claim(folder, 'adapter', { reads: { configFile: target }, overwrite: true })
  })

  test('may lie in the folder by a name that the run has no use for', async () => {
    const folder = made(['run.yaml', 'config.json', 'model-00001-of-00001.safetensors'])
    for (const name of ['run.yaml', 'config.json', 'model-00001-of-00001.safetensors']) {
      await claim(folder, 'adapter', { reads: { configFile: join(folder, name) } })
    }
    const reads = { train: join(folder, 'model-00001-of-00001.safetensors') }
    await expect(claim(folder, 'model', { reads })).rejects.toThrow('would replace model-00001-of-00001.safetensors')
  })

  test('is found at each place on the way, and a circle of links ends', async () => {
    const [a, b] = [join(root, 'a'), join(root, 'b')]
    symlinkSync(b, a)
    symlinkSync(a, b)
    expect((await placesOf(a)).slice(0, 3).map((place) => place.slice(-1))).toEqual(['a', 'b', 'a'])
    expect(await placesOf(join(root, 'none/file'))).toEqual([])
  })
})
