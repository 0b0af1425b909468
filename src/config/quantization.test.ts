import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { loadConfigFile, parseTrainConfig, quantizationOf, trainOptions, type Source } from './index.ts'
import { evalOptions, quantizeOptions } from '../commands/options.fixture.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }

function messageOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    expect(error).toMatchObject({ name: 'LowrankError', code: 'config' })
    return (error as Error).message
  }
  throw new Error('nothing was thrown')
}

const nf4 = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 }
const fp4 = { kind: '4bit', quantType: 'fp4', doubleQuant: false, blockSize: 64 }

test.each([
  [{}, undefined],
  [{ loadIn4bit: false }, undefined],
  [{ method: 'full' }, undefined],
  [{ loadIn4bit: true }, fp4],
  [{ load_in_4bit: true, bnb_4bit_quant_type: 'nf4', bnb_4bit_use_double_quant: true }, nf4],
  [{ loadIn8bit: true }, { kind: '8bit' }],
  [{ method: 'qlora' }, nf4],
  [{ method: 'qlora', loadIn4bit: true }, nf4],
  [
    { method: 'qlora', bnb4bitQuantType: 'fp4', bnb_4bit_block_size: 128 },
    { ...nf4, quantType: 'fp4', blockSize: 128 },
  ],
  [
    { method: 'qlora', bnb4bitUseDoubleQuant: false },
    { ...nf4, doubleQuant: false },
  ],
  [{ method: 'qlora', loadIn8bit: true }, { kind: '8bit' }],
  [{ method: 'qlora', load_in_8bit: true, load_in_4bit: false }, { kind: '8bit' }],
])('of a training with %j', (extra, expected) => {
  expect(quantizationOf(parseTrainConfig({ ...required, ...extra }))).toEqual(expected)
})

test.each([
  [{}, undefined],
  [{ loadIn4bit: true }, fp4],
  [
    { loadIn4bit: true, bnb4bitUseDoubleQuant: true },
    { ...fp4, doubleQuant: true },
  ],
  [{ loadIn8bit: true }, { kind: '8bit' }],
])('of an evaluation with %j', (extra, expected) => {
  expect(quantizationOf(evalOptions.parse({ model: 'm', data: 'd', ...extra }))).toEqual(expected)
})

test.each([
  [{}, nf4],
  [
    { loadIn4bit: true, bnb4bitQuantType: 'fp4' },
    { ...nf4, quantType: 'fp4' },
  ],
  [{ bnb4bitBlockSize: 4096 }, { ...nf4, blockSize: 4096 }],
  [{ loadIn8bit: true }, { kind: '8bit' }],
])('of quantize with %j', (extra, expected) => {
  const config = quantizeOptions.parse({ model: 'm', output: 'o', ...extra })
  expect(quantizationOf(config)).toEqual(expected)
  expect(quantizeOptions.parse(config)).toEqual(config)
  expect(config.maxShardSize).toBe(50e9)
})

test.each([
  [{ load_in_4bit: true, loadIn8bit: true }, 'load_in_4bit: cannot be combined with loadIn8bit; choose one'],
  [{ method: 'qlora', loadIn4bit: false }, 'loadIn4bit: found false, but method qlora needs a base in 4 bits'],
  [{ method: 'full', load_in_4bit: true, load_in_8bit: true }, 'load_in_4bit: cannot be combined with load_in_8bit'],
  [{ method: 'full', loadIn4bit: true }, 'loadIn4bit: method full trains every weight'],
  [{ method: 'full', loadIn8bit: true }, 'loadIn8bit: method full trains every weight'],
  [{ method: 'full', init: 'random', loadIn4bit: true }, 'loadIn4bit: method full trains every weight'],
  [{ method: 'qlora', init: 'random' }, 'init: random weights need method full'],
  [{ loadIn4bit: true, bnb4bitBlockSize: 48 }, 'bnb4bitBlockSize: found 48, expected one of 32, 64, 128'],
  [{ loadIn4bit: true, bnb4bitQuantType: 'nf3' }, 'bnb4bitQuantType: found "nf3", expected one of nf4, fp4'],
  [{ bnb_4bit_compute_dtype: 'bfloat16' }, 'bnb_4bit_compute_dtype: unknown option. Lowrank computes in f32'],
  [{ bnb4bitQuantStorage: 'uint8' }, 'bnb4bitQuantStorage: unknown option. Quantized weights are stored as bytes'],
  [{ loadIn4bits: true }, 'Did you mean "loadIn4bit"?'],
  [{ load_in_4_bit: true }, 'Did you mean "load_in_4bit"?'],
])('%j is refused', (extra, expected) => {
  expect(messageOf(() => parseTrainConfig({ ...required, ...extra }))).toContain(expected)
})

test('contradictions are refused everywhere', () => {
  const both = { model: 'm', loadIn4bit: true, loadIn8bit: true }
  expect(messageOf(() => evalOptions.parse({ ...both, data: 'd' }))).toContain('loadIn4bit: cannot be combined')
  expect(messageOf(() => quantizeOptions.parse({ ...both, output: 'o' }))).toContain('loadIn4bit: cannot be combined')
  const neither = { model: 'm', output: 'o', loadIn4bit: false }
  expect(messageOf(() => quantizeOptions.parse(neither))).toContain('loadIn4bit: found false')
})

test('what describes a base in 4 bits needs one, where there is no method to compare', () => {
  const evaluation = { model: 'm', data: 'd', bnb4bitQuantType: 'nf4' }
  expect(messageOf(() => evalOptions.parse(evaluation))).toContain(
    'bnb4bitQuantType: describes a base in 4 bits, and has no meaning with loadIn4bit not set',
  )
  const output = { model: 'm', output: 'o', loadIn8bit: true, bnb4bitBlockSize: 64 }
  expect(messageOf(() => quantizeOptions.parse(output))).toContain('bnb4bitBlockSize: describes a base in 4 bits')
})

test('names as in BitsAndBytesConfig, in files and flags', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'lowrank-config-')), 'run.yaml')
  writeFileSync(path, 'model: m\ntrain: t\noutput_dir: o\nload_in_4bit: true\nbnb_4bit_quant_type: nf4\n')
  const file = loadConfigFile(path)
  const flag = (name: string, value: unknown): Source => ({
    entries: [{ name, value, where: `--${name}` }],
    spelling: 'flag',
    text: true,
  })
  const sources = [file, flag('bnb-4bit-use-double-quant', true), flag('bnb-4bit-block-size', '256')]
  expect(trainOptions.read(sources)).toMatchObject({
    loadIn4bit: true,
    bnb4bitQuantType: 'nf4',
    bnb4bitUseDoubleQuant: true,
    bnb4bitBlockSize: 256,
  })
  expect(messageOf(() => trainOptions.read([file, flag('load-in-8bit', true)]))).toMatch(
    /run\.yaml:4: load_in_4bit: cannot be combined with --load-in-8bit/,
  )
})
