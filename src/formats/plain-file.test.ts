import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { LowrankError } from '../util/errors.ts'
import { hashFile } from './hash.ts'
import { readJsonObject } from './json.ts'
import { readJsonl } from './jsonl.ts'
import { checkPlainFile } from './plain-file.ts'
import { openSafetensors } from './safetensors.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-plain-'))
afterAll(() => rmSync(folder, { recursive: true }))

mkdirSync(join(folder, 'folder'))
symlinkSync('/dev/zero', join(folder, 'device'))
symlinkSync('loop', join(folder, 'loop'))
symlinkSync('nowhere', join(folder, 'broken'))
execFileSync('mkfifo', [join(folder, 'pipe')])

const readers: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  readJsonObject: (path) => readJsonObject(path, { code: 'model' }),
  openSafetensors: (path) => openSafetensors(path, { code: 'model' }),
  hashFile,
  readJsonl: (path) => readJsonl(path).next(),
}

const names = { folder: 'a folder', device: 'a device', pipe: 'a pipe', loop: 'ELOOP', broken: 'ENOENT' }
const cases = Object.keys(readers).flatMap((reader) => Object.entries(names).map(([name, why]) => [reader, name, why]))

// Data may come through a pipe, which would wait here for its writer.
test.each(cases.filter(([reader, name]) => !(reader === 'readJsonl' && name === 'pipe')))(
  '%s refuses what has no end: %s',
  async (reader = '', name = '', why = '') => {
    const error = await readers[reader]!(join(folder, name)).catch((found: unknown) => found)
    expect(error).toBeInstanceOf(LowrankError)
    expect(String(error)).toContain(why)
  },
)

test('links to files are files', async () => {
  writeFileSync(join(folder, 'file'), 'text')
  symlinkSync('file', join(folder, 'link'))
  expect(await checkPlainFile(join(folder, 'link'), { code: 'model' })).toBe(4)
})

test('JSON that is no UTF-8 is refused, not read with other characters', async () => {
  const path = join(folder, 'latin1.json')
  writeFileSync(path, Buffer.from('{"name": "caf\u00e9"}', 'latin1'))
  await expect(readJsonObject(path, { code: 'model' })).rejects.toThrow('latin1.json: not valid UTF-8')
})
