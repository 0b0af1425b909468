import { execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeBundle } from '../../util/bundle.fixture.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-pipe-'))
afterAll(() => rmSync(folder, { recursive: true }))

let built: string
beforeAll(async () => {
  built = await writeBundle(new URL('./index.ts', import.meta.url), folder)
})

interface Outcome {
  readonly out: string
  readonly megabytes: number
  readonly milliseconds: number
}

/** Counts the records of a path in a process of its own, cancelled after some milliseconds where those are named. */
async function count(path: string, { stdin = '', from = '/dev/null', cancelAfter = 0 } = {}): Promise<Outcome> {
  const script = `
    const { readRecords } = await import(${JSON.stringify(built)})
    const begun = performance.now()
    const before = process.resourceUsage().maxRSS
    const cancelled = () => ${cancelAfter} > 0 && performance.now() - begun > ${cancelAfter}
    let [records, errors] = [0, 0]
    let end = ''
    try {
      for await (const entry of readRecords(${JSON.stringify(path)}, { cancelled })) 'error' in entry ? errors++ : records++
    } catch (error) {
      end = error.code + ': ' + error.message
    }
    console.log(JSON.stringify({ out: records + ' ' + errors + ' ' + end, megabytes: (process.resourceUsage().maxRSS - before) / 1024 }))`
  const begun = performance.now()
  const command = `${stdin === '' ? `exec < "$2";` : `${stdin} |`} "$0" --input-type=module -e "$1"`
  const child = spawn('sh', ['-c', command, process.execPath, script, from], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  for await (const chunk of child.stdout) text += String(chunk)
  return { ...(JSON.parse(text) as Outcome), milliseconds: performance.now() - begun }
}

describe('memory is bounded by the longest record', () => {
  const value = 'lorem ipsum '.repeat(80)
  /** 200 MB. */
  function generate(name: string, record: (i: number) => string, [head, tail] = ['', '']): string {
    const path = join(folder, name)
    const file = openSync(path, 'w')
    writeSync(file, head)
    for (let i = 0; i < 200; i++) {
      writeSync(file, Array.from({ length: 1000 }, (_, j) => record(i * 1000 + j)).join(''))
    }
    writeSync(file, tail)
    closeSync(file)
    return path
  }

  test('a JSON array of 200 MB', async () => {
    const path = generate('a.json', (i) => `${i === 0 ? '' : ','}{"text":"${value}"}`, ['[', ']'])
    const { out, megabytes } = await count(path)
    rmSync(path)
    expect(out).toBe('200000 0 ')
    expect(megabytes).toBeLessThan(150)
  })

  test('a table of 200 MB, through standard input', async () => {
    const path = generate('a.csv', () => `"${value}",1\n`, ['a,b\n', ''])
    const { out, megabytes } = await count('-', { stdin: `cat ${path}` })
    rmSync(path)
    expect(out).toBe('200000 0 ')
    expect(megabytes).toBeLessThan(150)
  })
})

describe('a pipe', () => {
  test('standard input, compressed', async () => {
    expect((await count('-', { stdin: `printf '{"a":1}\\n{"a":2}\\nx' | gzip` })).out).toBe('2 1 ')
  })

  test('what is no data is named', async () => {
    expect((await count('-', { stdin: 'echo Hello there.' })).out).toContain(
      'data: standard input: neither its beginning',
    )
  })

  test.each(['-', 'by its name'])('a cancel ends the process, also while it waits: %s', async (how) => {
    const pipe = join(folder, `pipe ${how}`)
    execFileSync('mkfifo', [pipe])
    const writer = spawn('sh', ['-c', 'sleep 20 > "$0"', pipe], { stdio: 'ignore', detached: true })
    const { out, milliseconds } = await count(how === '-' ? '-' : pipe, {
      from: how === '-' ? pipe : '/dev/null',
      cancelAfter: 300,
    })
    process.kill(-writer.pid!)
    expect(out).toMatch(/^0 0 cancelled: cancelled while reading /)
    expect(milliseconds).toBeLessThan(5000)
  })
})
