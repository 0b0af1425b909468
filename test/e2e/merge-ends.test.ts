import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { merge, type MergeConfigInput } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { writeRandomAdapter } from '../../scripts/random-adapter.ts'
import { writeRandomModel } from '../../scripts/random-nf4.ts'
import { directTasks } from '../tasks.ts'
import { mergeSetup } from './merge-setup.ts'
import {
  flags,
  hashFolder,
  listFiles,
  lowrank,
  lowrankHere,
  quickstart,
  readJson,
  root,
  startLowrank,
  writeElements,
} from './support.ts'

const { folder, at, prepare, lossOf } = mergeSetup()
let model = ''
let before: Record<string, string> = {}

beforeAll(async () => {
  model = await prepare()
  before = hashFolder(folder)
})

describe('refused, with nothing written:', () => {
  const output = at('refused')

  async function refusal(options: Readonly<Record<string, string>>, ...more: readonly string[]): Promise<string> {
    const args = flags({ model, adapter: at('lora'), output, ...options })
    const { code, stderr } = await lowrankHere(['merge', ...args, ...more])
    expect(stderr).toMatch(/^error: /m)
    expect(code, stderr).toBe(2)
    expect(existsSync(output)).toBe(false)
    return stderr
  }

  test('the folder of the model or of the adapter as output, or one that is not empty', async () => {
    expect(await refusal({ output: model })).toMatch(/is the folder of the model itself/)
    expect(await refusal({ output: join(at('lora'), '.') })).toMatch(/is the folder of the adapter itself/)
    mkdirSync(at('full'))
    writeFileSync(join(at('full'), 'notes.txt'), 'mine')
    expect(await refusal({ output: at('full') })).toMatch(/full is not empty \(notes.txt\)/)
    expect(listFiles(at('full'))).toEqual(['notes.txt'])
    expect(hashFolder(at('lora'))['adapter_model.safetensors']).toBe(before['lora/adapter_model.safetensors'])
  })

  test('another base than that of the training, unless it is asked for', async () => {
    const copy = at('changed')
    cpSync(model, copy, { recursive: true })
    writeElements(join(copy, 'model.safetensors'), 'model.norm.weight', 0.5)
    const message = await refusal({ model: copy })
    expect(message).toMatch(
      /was trained on another model \(.*\) than .*changed: by .*run.json its files have the SHA-256/,
    )
    expect(message).toContain('--any-base')
    await directTasks.merge({ model: copy, adapter: at('lora'), output: at('any-base'), anyBase: true })
  })

  test('adapters that were trained on different weights', async () => {
    const message = await refusal({}, '--adapter', at('qlora'))
    expect(message).toMatch(
      /trained on different weights: .*lora on a base that is not quantized, .*qlora on a base that is 4-bit/,
    )
    expect(message).toContain('--into original')
  })

  test('what would take an adapter out of a merged model, or put it in again', async () => {
    const merged = at('merged-bf16')
    await directTasks.merge({ model, adapter: at('lora'), output: merged, dtype: 'bf16' })
    const unmerge = await refusal({ model: merged, adapter: `${at('lora')}:-1` })
    expect(unmerge).toMatch(
      /would take out what was merged, which does not give the base again: .*dtype bf16.*lost a part/,
    )
    expect(unmerge).toContain(`hint: Use the base itself: ${model}.`)
    // Also a copy of it, and whatever base is taken.
    cpSync(at('lora'), at('copied'), { recursive: true })
    expect(await refusal({ model: merged, adapter: `${at('copied')}:-0.5` }, '--any-base')).toMatch(/take out/)
    expect(await refusal({ model: merged })).toMatch(/would be added a second time/)
  })

  test('an adapter given twice, or with a scale that is none', async () => {
    expect(await refusal({}, '--adapter', `${join(at('lora'), '.')}:2`)).toMatch(/is given twice/)
    expect(await refusal({ adapter: `${at('lora')}:0` })).toMatch(/a scale of 0 adds nothing/)
    expect(await refusal({ adapter: `${at('lora')}:half` })).toMatch(/the scale "half" is no number/)
    expect(await refusal({ adapter: `${at('lora')}:0,5` })).toMatch(/there is no folder of this name/)
    const both = await refusal({ adapter: `${at('lora')}:0.5,${at('other')}` })
    expect(both).toContain(`own: --adapter ${at('lora')}:0.5 --adapter ${at('other')}`)
  })

  test('options that contradict each other', async () => {
    expect(await refusal({ into: 'original' }, '--load-in-4bit')).toMatch(
      /--into: original .* contradicts --load-in-4bit/,
    )
    expect(await refusal({ dtype: 'int8' })).toMatch(/--dtype: found "int8", expected one of auto, bf16, f16, f32/)
  })

  test('a model as adapter, an adapter as model', async () => {
    expect(await refusal({ adapter: model })).toMatch(/this one holds a model, not an adapter/)
    expect(await refusal({ model: at('lora') })).toMatch(/adapter/)
  })

  test.each<[string, (path: string) => void, RegExp]>([
    [
      'is not finite',
      (path) => writeElements(join(path, 'adapter_model.safetensors'), aOf(1), NaN),
      /lora_A.weight holds NaN in element 0/,
    ],
    [
      'is cut short',
      (path) =>
        writeFileSync(
          join(path, 'adapter_model.safetensors'),
          readFileSync(join(path, 'adapter_model.safetensors')).subarray(0, -4),
        ),
      /adapter_model.safetensors/,
    ],
    ['has a rank that its tensors have not', (path) => edit(path, { r: 5 }), /rank 5 needs/],
    ['leaves out what its file has', (path) => edit(path, { target_modules: ['q_proj'] }), /leaves out/],
    [
      'is for layers that are not there',
      (path) => edit(path, { target_modules: ['c_attn'] }),
      /matches no linear layer/,
    ],
    ['is of another kind', (path) => edit(path, { use_dora: true }), /"use_dora" is true, which is not supported/],
    [
      'makes a weight infinite',
      (path) => edit(path, { lora_alpha: 1e9 }, 1e38),
      /the merged weight model.layers.0.* would hold -?Infinity/,
    ],
  ])('an adapter that %s', async (name, change, message) => {
    const adapter = at(`hostile ${name}`)
    cpSync(at('lora'), adapter, { recursive: true })
    change(adapter)
    expect(await refusal({ adapter, model, dtype: 'f32' })).toMatch(message)
    expect(hashFolder(model)).toMatchObject({ 'model.safetensors': before['tiny/model.safetensors'] })
  })

  test('numbers that are too large for f16, by the name of the tensor', async () => {
    const adapter = at('large')
    cpSync(at('lora'), adapter, { recursive: true })
    edit(adapter, { lora_alpha: 1e9 })
    expect(await refusal({ adapter, dtype: 'f16' })).toMatch(
      /dtype: element \d+ of model\.layers\.0\.\S+ is -?[\d.e+]+, too large for F16/,
    )
  })

  const aOf = (layer: number): string => `base_model.model.model.layers.${layer}.mlp.up_proj.lora_A.weight`

  function edit(path: string, changes: object, element?: number): void {
    const file = join(path, 'adapter_config.json')
    writeFileSync(file, JSON.stringify({ ...(readJson(file) as object), ...changes }))
    if (element === undefined) return
    for (const part of ['lora_A', 'lora_B'])
      writeElements(join(path, 'adapter_model.safetensors'), aOf(0).replace('lora_A', part), element, { all: true })
  }
})

describe('a merge that does not end', () => {
  const large = at('large-model')
  const adapter = at('large-adapter')
  const output = at('some/where/new')
  const config: MergeConfigInput = { model: large, adapter, output }

  beforeAll(async () => {
    const shape = { layers: 6, hidden: 512, ffn: 1536, heads: 8, kvHeads: 2, vocabulary: 2496 }
    await writeRandomModel(large, shape, quickstart, { storage: 'BF16' })
    await writeRandomAdapter(adapter, large, 64)
  })

  test('leaves nothing when it is cancelled', async () => {
    await expect(merge(config, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'cancelled' })
    expect(existsSync(at('some'))).toBe(false)
    const controller = new AbortController()
    const onStatus = (message: string): void => {
      if (message.startsWith('merging: ')) controller.abort()
    }
    await expect(merge(config, { signal: controller.signal, onStatus })).rejects.toMatchObject({ code: 'cancelled' })
    expect(existsSync(at('some'))).toBe(false)
  })

  test.skipIf(process.platform === 'win32')('leaves nothing when a file cannot grow', () => {
    const args = [join(root, 'dist/cli.js'), 'merge', ...flags({ model: large, adapter, output })]
    const command = 'ulimit -f 2000; exec "$0" "$@"'
    const { status, stderr } = spawnSync('bash', ['-c', command, process.execPath, ...args], { encoding: 'utf8' })
    expect(stderr).toMatch(/error: cannot write .*model\.safetensors: EFBIG/)
    expect(status).toBe(1)
    expect(existsSync(at('some'))).toBe(false)
  })

  test.skipIf(process.platform === 'win32')(
    'leaves nothing that looks whole when it is killed, and can be done again',
    async () => {
      const args = ['merge', ...flags({ model: large, adapter, output })]
      const running = startLowrank(args)
      const begun = (): boolean => listFiles(output).some((name) => name.startsWith('.checkpoint.tmp'))
      while (!begun() && running.child.exitCode === null) await sleep(5)
      await sleep(100)
      running.child.kill('SIGKILL')
      expect((await running.ended).code).toBe(null)
      const left = listFiles(output)
      expect(left.length).toBeGreaterThan(0)
      expect(left.filter((name) => !name.startsWith('.'))).toEqual([])
      await expect(lossOf({ model: output })).rejects.toMatchObject({ code: 'model' })
      const again = await lowrank(args)
      expect(again.code, again.stderr).toBe(0)
      expect(listFiles(output).filter((name) => name.startsWith('.'))).toEqual([])
      rmSync(at('some'), { recursive: true })
    },
  )
})
