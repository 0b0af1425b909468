import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { takeLock } from './lock.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
  path = join(folder, 'lock')
})
afterEach(() => rm(folder, { recursive: true }))

const hold = (holder: object): Promise<void> => writeFile(path, JSON.stringify({ since: 'then', ...holder }))

test('is had by one, until it is given back', async () => {
  const giveBack = await takeLock(path, 'a run writes here')
  await expect(takeLock(path, 'a run writes here')).rejects.toMatchObject({
    code: 'config',
    message: expect.stringContaining(`a run writes here: process ${process.pid} does so since 20`) as string,
  })
  await giveBack()
  expect(existsSync(path)).toBe(false)
  await (
    await takeLock(path, '')
  )()
})

test('of a process that lives is respected', async () => {
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 20000)'])
  await hold({ pid: child.pid, host: hostname() })
  await expect(takeLock(path, 'a run')).rejects.toThrow(`process ${child.pid} `)
  child.kill()
})

test.each([
  ['of a process that has ended', { pid: 2 ** 22 + 1, host: hostname() }],
  ['of an earlier process of the same number', { pid: process.pid, host: hostname(), started: '1' }],
  ['that is damaged', { pid: 'x' }],
])('%s is taken over', async (what, holder) => {
  if (what.includes('number') && process.platform !== 'linux') return
  await hold(holder)
  const giveBack = await takeLock(path, 'a run')
  expect(await readFile(path, 'utf8')).toContain(`"pid":${process.pid},`)
  await giveBack()
})

test('of another machine is respected, and the file named', async () => {
  await hold({ pid: 1, host: 'elsewhere' })
  await expect(takeLock(path, 'a run')).rejects.toMatchObject({
    message: expect.stringContaining('process 1 on elsewhere') as string,
    hint: expect.stringContaining(`remove ${path}`) as string,
  })
})

test('in a folder that is not there is an error', async () => {
  await expect(takeLock(join(folder, 'no', 'lock'), 'a run')).rejects.toMatchObject({ code: 'io' })
})
