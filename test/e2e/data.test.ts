import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { checkData, convertData, inspectData, mapData, previewData, splitData } from 'lowrank'
import { lowrankHere, makeTinyModel, temporaryFolder } from './support.ts'

const folder = temporaryFolder()
let model: string
let files = 0

beforeAll(async () => {
  model = await makeTinyModel(folder)
})

function write(records: readonly unknown[], name = `data-${files++}.jsonl`): string {
  const path = join(folder, name)
  writeFileSync(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  return path
}

const read = (path: string): unknown[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown)

const pair = (i: number): { prompt: string; completion: string; user: number } => ({
  prompt: `Ticket ${i}: the printer`,
  completion: ' slow',
  user: i % 7,
})
const pairs = Array.from({ length: 200 }, (_, i) => pair(i))

describe('inspect and check', () => {
  test('count what a run would read, and name what is suspicious by its line', async () => {
    const records = [pair(0), pair(1), pair(0), { ...pair(2), completion: '' }, { prompt: 'a@b.example' }, pair(3)]
    const data = write([
      ...records,
      { ...pair(4), prompt: 'Mail a.b@c.example' },
      { ...pair(5), prompt: '4111 1111 1111 1111' },
    ])
    const valid = write([pair(3), pair(9)])
    const report = await inspectData(data, { model, valid })
    expect(report).toMatchObject({ shape: 'pairs', examples: 7, malformed: 1, template: undefined })
    expect(report.problems).toEqual([`${data}:5: "completion" is missing; found "prompt"`])
    expect(report.histogram.reduce((total, { count }) => total + count, 0)).toBe(7)
    const found = Object.fromEntries(report.findings.map(({ kind, places }) => [kind, places]))
    expect(found).toMatchObject({
      duplicate: [`${data}:3`],
      emptyAnswer: [`${data}:4`],
      email: [`${data}:7`],
      card: [`${data}:8`],
      overlap: [`${data}:6`],
    })
    const allowed = await checkData(data, { model, allow: ['email', 'card'] })
    expect(allowed.findings.map(({ kind }) => kind)).toEqual(['duplicate', 'emptyAnswer'])
  })

  test('check fails where something is found, and else does not', async () => {
    const bad = await lowrankHere(['data', 'check', write([pair(0), pair(0)]), '--model', model])
    expect(bad.code).toBe(1)
    expect(bad.stderr).toContain('duplicate (1)')
    expect((await lowrankHere(['data', 'check', write([pair(0), pair(1)]), '--model', model])).code).toBe(0)
  })
})

describe('preview', () => {
  test('shows the tokens with their labels, whose texts together are the text', async () => {
    const [row] = await previewData(write([{ prompt: 'Ticket é 日本 😀:', completion: ' <b>slow</b>' }]), { model })
    const text = (label: boolean): string =>
      row!.tokens
        .filter((token) => token.label === label && !token.special)
        .map((token) => token.text)
        .join('')
    expect(text(false)).toBe('Ticket é 日本 😀:')
    expect(text(true)).toBe(' <b>slow</b>')
    expect(row!.tokens.at(-1)).toMatchObject({ label: true, special: true })
  })

  test('as JSON, a line for each example, and as a page that escapes what it shows', async () => {
    const data = write([pair(0), { prompt: '<script>', completion: 'x' }])
    const html = join(folder, 'page.html')
    const { stdout, code } = await lowrankHere(['data', 'preview', data, '--model', model, '--json', '--html', html])
    expect(code).toBe(0)
    const lines = stdout.trimEnd().split('\n')
    expect(lines).toHaveLength(2)
    const { ids, labels, row } = JSON.parse(lines[0]!) as { ids: number[]; labels: number[]; row: number }
    expect(row).toBe(1)
    expect(labels.every((label, i) => label === -100 || label === ids[i])).toBe(true)
    expect(labels.filter((label) => label !== -100).length).toBeGreaterThan(0)
    const page = readFileSync(html, 'utf8')
    expect(page).not.toContain('<script')
    expect(page).toContain('&lt;')
    await expect(previewData(data, { model, html })).rejects.toMatchObject({ code: 'config' })
    await expect(previewData(data, { model, row: 3 })).rejects.toThrow('has 2 examples')
  })
})

describe('split', () => {
  const sides = async (data: string, options: object): Promise<{ train: unknown[]; valid: unknown[] }> => {
    const { train, valid } = await splitData(data, { output: join(folder, `split-${files++}`), ...options })
    const found = { train: read(train.path), valid: read(valid.path) }
    expect([found.train.length, found.valid.length]).toEqual([train.records, valid.records])
    return found
  }

  test('every record is on one side, the same again and with more records', async () => {
    const first = await sides(write(pairs.slice(0, 150)), { share: 0.2 })
    expect(first.train.length + first.valid.length).toBe(150)
    expect(first.valid.length).toBeGreaterThan(10)
    const more = await sides(write(pairs), { share: '20%' })
    expect(more.valid).toEqual(expect.arrayContaining(first.valid))
    expect(more.train).toEqual(expect.arrayContaining(first.train))
    expect((await sides(write(pairs), { share: 0.2, seed: 1 })).valid).not.toEqual(more.valid)
  })

  test('groups stay together', async () => {
    const { train, valid } = await sides(write(pairs), { share: 0.4, group: 'user' })
    const users = (side: unknown[]): Set<unknown> => new Set(side.map((one) => (one as { user: number }).user))
    expect([...users(train)].filter((user) => users(valid).has(user))).toEqual([])
    expect(users(train).size + users(valid).size).toBe(7)
  })

  test('what goes wrong leaves no file', async () => {
    const output = join(folder, 'split-none')
    await expect(splitData(write([...pairs, 7]), { output, group: 'user' })).rejects.toThrow(
      '"user", by which is grouped',
    )
    expect(existsSync(join(output, 'train.jsonl'))).toBe(false)
    mkdirSync(output, { recursive: true })
    writeFileSync(join(output, 'valid.jsonl'), 'mine')
    await expect(splitData(write(pairs), { output })).rejects.toThrow('is there already')
    expect(readFileSync(join(output, 'valid.jsonl'), 'utf8')).toBe('mine')
    expect(existsSync(join(output, 'train.jsonl'))).toBe(false)
  })
})

test('convert writes chats of any shape, mapData whatever a function makes', async () => {
  const output = join(folder, 'chats.jsonl')
  const data = write([
    {
      conversations: [
        { from: 'human', value: 'a' },
        { from: 'gpt', value: 'b', weight: 0 },
      ],
    },
  ])
  expect(await convertData(data, { output })).toEqual({ path: output, records: 1 })
  expect(read(output)).toEqual([
    {
      messages: [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b', weight: 0 },
      ],
    },
  ])
  await expect(convertData(write([{ text: 'a' }]), { output: join(folder, 'none.jsonl') })).rejects.toThrow(
    'no conversation',
  )
  const table = join(folder, 'orders.csv')
  writeFileSync(table, 'q,a\n1,2\n3,\n')
  const mapped = join(folder, 'mapped.jsonl')
  await mapData(table, mapped, ({ q, a }) => (a === '' ? undefined : { prompt: q, completion: a }))
  expect(read(mapped)).toEqual([{ prompt: '1', completion: '2' }])
})
