import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { compressions } from './compressed.ts'
import { placeText, readers } from './index.ts'
import { readJsonArray } from './json-array.ts'
import { type Content, readerFolder, recordsOf, zstd } from './records.fixture.ts'
import { readTable } from './table.ts'

const { read, refused } = readerFolder()
const golden = fileURLToPath(new URL('../../../test/golden/parquet', import.meta.url))

const five = ['plain', 'drei €, "quoted"', 'two\nlines', ' spaces ', '\ud83d\ude00\u2028 tab\t'].map((text, i) => ({
  text,
  other: `${i}`,
}))
const csv = (delimiter: string): string =>
  ['text', 'other']
    .join(delimiter)
    .concat('\n', five.map(({ text, other }) => `"${text.replaceAll('"', '""')}"${delimiter}${other}\n`).join(''))
const lines = five.map((record) => `${JSON.stringify(record)}\n`).join('')

/** The five records in each format. */
const written: Readonly<Record<string, Content>> = {
  '.jsonl': lines,
  '.ndjson': lines,
  '.json': JSON.stringify(five, null, 2),
  '.csv': csv(','),
  '.tsv': csv('\t'),
}
const packed: Readonly<Record<string, (content: Content) => Content>> = {
  '': (content) => content,
  '.gz': gzipSync,
  '.zst': zstd,
}

describe('one contract', () => {
  test('every reader and every compression is tried', () => {
    const tried = readers.filter(({ extensions }) => extensions.some((one) => written[one] !== undefined))
    expect(readers.filter((one) => !tried.includes(one)).map(({ name }) => name)).toEqual(['plain text', 'Parquet'])
    expect(Object.keys(packed)).toEqual(['', ...compressions.map(({ extension }) => extension)])
  })

  test.each(Object.keys(written).flatMap((extension) => Object.keys(packed).map((end) => [extension, end] as const)))(
    'five records come out of a %s%s',
    async (extension, end) => {
      expect(await read(`five${extension}${end}`, packed[end]!(written[extension]!))).toEqual(five)
    },
  )

  const stored = readdirSync(golden).filter((name) => /^five-.*parquet$/.test(name))

  test.each(stored)('and out of %s', async (name) => {
    expect(await recordsOf(join(golden, name))).toEqual(five)
  })

  test('and out of plain text, by lines', async () => {
    const texts = ['a', ' b ', 'drei €', '{', '"c", d']
    for (const [end, pack] of Object.entries(packed)) {
      expect(await read(`five.txt${end}`, pack(texts.join('\n\n')))).toEqual(texts.map((text) => ({ text })))
    }
  })
})

const bytes = (...parts: (string | readonly number[])[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))))

/** A UTF-8 form of half a surrogate pair. */
const halfPair = [0xed, 0xa0, 0xbd] as const
const isTooDeep = 'not valid JSON (nested more than 200 levels deep)'

describe('JSONL', () => {
  test.each<[string, Content, unknown[]]>([
    ['a byte order mark and CRLF', '\ufeff{"a":1}\r\n\r\n{"a":2}\r\n', [{ a: 1 }, { a: 2 }]],
    ['lists, one a line', '[1]\n[2]', [[1], [2]]],
    ['a lone surrogate, escaped', '{"a":"\\ud83d"}', [{ a: '\ud83d' }]],
    ['a lone surrogate', bytes('{"a":"', halfPair, '"}\n{}'), ['a.jsonl:1: not valid UTF-8', {}]],
    ['zero bytes', '{"a":1}\n\0\0\n', [{ a: 1 }, 'a.jsonl:2: not valid JSON (it holds zero bytes; a damaged file?)']],
    ['deep nesting', `{"a":${'['.repeat(1e4)}${']'.repeat(1e4)}}\n1`, [`a.jsonl:1: ${isTooDeep}`, 1]],
    ['a prototype', '{"__proto__":{"a":1}}', [JSON.parse('{"__proto__":{"a":1}}')]],
    ['a key of lists with records behind', '{"data":[]}\n{"data":[]}', [{ data: [] }, { data: [] }]],
    ['nothing', '', []],
    ['blank lines', '\ufeff \n\r\n\t', []],
  ])('%s', async (_, content, expected) => {
    expect(await read('a.jsonl', content)).toEqual(expected)
  })

  test('a line of 50 MB', async () => {
    const [record] = (await read('a.jsonl', `{"a":"${'x'.repeat(50e6)}"}`)) as [{ a: string }]
    expect(record.a).toHaveLength(50e6)
  })
})

describe('a JSON array', () => {
  const strange = ['],[', '\\', '\\"', '}', '{"', '\n'].map((text) => ({ [text]: [text, { [text]: text }] }))

  test.each<[string, Content, unknown[]]>([
    ['brackets, quotes and backslashes in texts', JSON.stringify(strange), strange],
    ['a byte order mark and CRLF', '\ufeff \r\n[\r\n{"a":1},\r\n{"a":2}]\r\n', [{ a: 1 }, { a: 2 }]],
    ['lone CR', '[\r{"a":1},\r{"a":2}\r]\r', [{ a: 1 }, { a: 2 }]],
    ['no element', ' [ \n ] ', []],
    [
      'malformed elements',
      '[{"a":1}, {"b":2,}, , {"c" 3}, {"d":4]}, 5]',
      [
        { a: 1 },
        expect.stringMatching(/^a.json, row 2: not valid JSON/),
        expect.anything(),
        expect.anything(),
        expect.stringMatching(/^a.json, row 5/),
        5,
      ],
    ],
    ['a comma behind the last', '[[1],]', [[1], expect.stringMatching(/^a.json, row 2: not valid JSON/)]],
    ['a lone surrogate', bytes('["', halfPair, '", 2]'), ['a.json, row 1: not valid UTF-8', 2]],
    ['zero bytes', '["\0", 2]', ['a.json, row 1: not valid JSON (it holds zero bytes; a damaged file?)', 2]],
    ['deep nesting', `[${'['.repeat(1e4)}${']'.repeat(1e4)}, 1]`, [`a.json, row 1: ${isTooDeep}`, 1]],
  ])('%s', async (_, content, expected) => {
    expect(await read('a.json', content)).toEqual(expected)
  })

  test.each([
    ['[{"a":1},{"a"', 'a.json, row 2: the file ends within this row'],
    ['[{"a":1}', 'a.json, row 1: the file ends within this row'],
    ['[{"a":1},{"a":"}]', 'a.json, row 2: the file ends within this row'],
    ['[{"a":[{"a":1}]', 'a.json, row 1: the file ends within this row'],
    ['[{"a":1}] {"a":2}', 'a.json, row 1: more follows the end of the JSON array'],
  ])('what is not whole: %s', async (content, why) => {
    expect(await refused('a.json', content)).toContain(why)
  })

  test('rows that span many reads, and bytes that come one by one', async () => {
    const values = Array.from({ length: 40 }, (_, i) => ({ text: '€"\\'.repeat(i * 1000) }))
    expect(await read('a.json', JSON.stringify(values))).toEqual(values)
    const one = async function* (): AsyncGenerator<Uint8Array> {
      for (const byte of Buffer.from(` ${JSON.stringify(strange)}\n`)) yield Uint8Array.of(byte)
    }
    const found: unknown[] = []
    for await (const entry of readJsonArray({ path: '', chunks: one() })) found.push('value' in entry && entry.value)
    expect(found).toEqual(strange)
  })
})

describe('a table', () => {
  test.each<[string, Content, unknown[]]>([
    ['a byte order mark and CRLF', '\ufeffa,b\r\n1,2\r\n\r\n3,4', [row('1', '2'), row('3', '4')]],
    ['lone CR', 'a,b\r1,2\r3,4\r', [row('1', '2'), row('3', '4')]],
    ['a quoted header behind a byte order mark', '\ufeff"a","b"\n1,2', [row('1', '2')]],
    ['line breaks within quotes', 'a,b\n"1\r\n\r2\n",\n3,', [row('1\r\n\r2\n', ''), row('3', '')]],
    [
      'lone CR within quotes, a line each',
      'a,b\r"1\r\r2",x\r3\r',
      [row('1\r\r2', 'x'), 'a.csv:5: 1 value, where the header has 2'],
    ],
    ['quotes', 'a,b\n"""","a ""b"" c"\n5" disk,a"b"', [row('"', 'a "b" c'), row('5" disk', 'a"b"')]],
    ['semicolons', 'a;b\n1,5;2\n', [row('1,5', '2')]],
    ['commas before semicolons', 'a,b;c\n1,2', [{ a: '1', 'b;c': '2' }]],
    ['one column, an empty value that is quoted', 'a\n1\n""\n\n2', [{ a: '1' }, { a: '' }, { a: '2' }]],
    ['a prototype', '__proto__,b\n1,2', [JSON.parse('{"__proto__":"1","b":"2"}')]],
    ['zero bytes', 'a,b\n\0,2', [row('\0', '2')]],
    ['a header alone', 'a,b\n', []],
    ['nothing', '', []],
    ['blank lines', '\r\n \r\n', []],
    [
      'ragged rows',
      'a,b\n1\n"1\n",2,3\n4,5\n6,7,',
      [
        'a.csv:2: 1 value, where the header has 2',
        'a.csv:3: 3 values, where the header has 2',
        row('4', '5'),
        'a.csv:6: 3 values, where the header has 2',
      ],
    ],
    [
      'text behind a quote',
      'a,b\r\n"1\r\n"x,2\r\n3,4',
      ['a.csv:2: text follows a closing quote; a quote within quotes is written twice', row('3', '4')],
    ],
    ['a lone surrogate', bytes('a,b\n1,', halfPair, '\n3,4'), ['a.csv:2: not valid UTF-8', row('3', '4')]],
  ])('%s', async (_, content, expected) => {
    expect(await read('a.csv', content)).toEqual(expected)
    const found: unknown[] = []
    // The same where bytes come one by one.
    const delimiter = content.toString().startsWith('a;') ? ';' : ','
    const one = async function* (): AsyncGenerator<Uint8Array> {
      const all = Buffer.from(content)
      yield all.subarray(0, 4)
      for (const byte of all.subarray(4)) yield Uint8Array.of(byte)
    }
    for await (const entry of readTable({ path: 'a.csv', chunks: one() }, delimiter)) {
      found.push('error' in entry ? `${placeText(entry.place)}: ${entry.error}` : entry.value)
    }
    expect(found.filter((entry) => expected.length > 0 || typeof entry === 'string')).toEqual(expected)
  })

  test.each([
    ['a,b\n1,"2\n\n3,4\n', 'a.csv:2: the quote that begins here has no end'],
    ['a,b\n"1\n2","\n3,4\n', 'a.csv:3: the quote that begins here has no end'],
    [`a,b\n1,"2\n${'3,4\n'.repeat(17e6)}`, 'a.csv:2: the quote that begins here goes on for more than 67108864 bytes'],
    ['a,b,a\n', 'a.csv:1: the header names two columns "a"'],
    ['\n,b\n', 'a.csv:2: column 1 of the header has no name | pandas writes its index there'],
    ['a,\n', 'a.csv:1: column 2 of the header has no name'],
    [bytes(halfPair, ',b\n1,2'), 'a.csv:1: the header is not valid UTF-8'],
  ])('is refused: %.20j', async (content, why) => {
    expect(await refused('a.csv', content)).toContain(why)
  })

  test('bounds a row', async () => {
    const long = 'x'.repeat(70e6)
    expect(await read('a.csv', `a,b\n1,2\n${long},2\n${','.repeat(5e6)}\n3,4`)).toEqual([
      row('1', '2'),
      'a.csv:3: longer than 67108864 bytes',
      'a.csv:4: longer than 67108864 bytes',
      row('3', '4'),
    ])
  })

  function row(a: string, b: string): object {
    return { a, b }
  }
})

describe('plain text', () => {
  test.each<[string, Content, unknown[]]>([
    ['a byte order mark, CRLF and blank lines', '\ufeff a \r\n\r\n\t\nb\0', [{ text: ' a ' }, { text: 'b\0' }]],
    ['what looks like a table', 'Hello,world\n1', [{ text: 'Hello,world' }, { text: '1' }]],
    ['a lone surrogate', bytes('a\n', halfPair), [{ text: 'a' }, 'a.txt:2: not valid UTF-8']],
    ['nothing', '', []],
  ])('%s', async (_, content, expected) => {
    expect(await read('a.txt', content)).toEqual(expected)
  })
})

describe('a name and a content that do not belong together', () => {
  test.each<[string, Content, string]>([
    [
      'a.csv',
      '{"a":1}\n{"a":2}',
      'a.csv holds JSONL, which its name contradicts | Give it a name that ends with .jsonl.',
    ],
    ['a.csv.gz', gzipSync('[{"a":1}]'), 'a.csv.gz holds a JSON array'],
    ['a.tsv', 'a,b\n1,2', 'a.tsv holds a table with commas (CSV)'],
    ['a.csv', 'a\tb\n1\t2', 'a.csv holds a table with tabs (TSV)'],
    ['a.jsonl', 'prompt,completion\na,b', 'a.jsonl holds a table with commas (CSV)'],
    ['a.jsonl', '"prompt"\t"completion"\n', 'a.jsonl holds a table with tabs (TSV)'],
    ['a.txt', '{"a":1}', 'a.txt holds JSONL'],
    ['a.txt', '[\n{"a":1}]', 'a.txt holds a JSON array'],
    ['a.dat', 'Hello there.', 'neither its beginning nor its name says what it is'],
    ['a.jsonl', '{\n  "a": 1\n}', 'a.jsonl is JSON written over several lines'],
    ['a.json', '{"a": 1,\n "b": 2}', 'a.json is JSON written over several lines'],
    [
      'a.json',
      '{"data":[{"a":1}]}\n',
      `a JSON object around an array, "data" | Write the objects of that array one a line: jq -c '.data[]'`,
    ],
    ['a.json', '{\n "version": "1",\n "train": [\n', 'a JSON object around an array, "train"'],
    ['a.jsonl', '{"a":1}\r{"a":2}\r', 'a.jsonl is text whose lines end with CR alone'],
    ['a.txt', 'a\rb', 'a.txt is text whose lines end with CR alone'],
    ['a.jsonl', Buffer.from('\ufeff{"a":1}\n', 'utf16le'), 'is UTF-16 text'],
    ['a.csv', Buffer.from('a,b\n', 'utf16le'), 'is UTF-16 text'],
    ['a.jsonl', Buffer.from('PK\x03\x04....'), 'is a zip archive'],
    ['a.csv', bytes([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), 'is xz-compressed'],
    ['a.jsonl', 'BZh91AY', 'is bzip2-compressed'],
    ['a.jsonl', 'ARROW1\0\0', 'is an Arrow file'],
    ['a.jsonl', bytes([0xff, 0xff, 0xff, 0xff, 0x10, 0, 0, 0]), 'is a stream of Arrow'],
    ['a.jsonl', bytes([0x80, 4, 0x95, 1]), 'is a pickle of Python'],
    ['a.jsonl.gz', gzipSync(bytes([0x80, 4, 0x95, 1])), 'is a pickle of Python'],
  ])('%s: %j', async (name, content, why) => {
    expect(await refused(name, content)).toContain(why)
  })

  test('JSON is read by any name of JSON, and by none', async () => {
    for (const name of ['a.json', 'a.jsonl', 'a.ndjson', 'a', 'a.data']) {
      expect(await read(name, '{"a":1}\n{"a":2}')).toHaveLength(2)
      expect(await read(name, '[{"a":1},{"a":2}]')).toHaveLength(2)
    }
    expect(await read('a', 'a\tb\n1\t2')).toEqual([{ a: '1', b: '2' }])
  })
})
