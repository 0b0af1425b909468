import { execFile } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  mkdirSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { listModels, loadModel, removeModel } from 'lowrank'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { fromHub } from '../../src/hub/resolve.ts'
import { LowrankError } from '../../src/util/errors.ts'
import { resultOf } from '../../src/util/task.ts'
import { directTasks } from '../tasks.ts'
import { json, refuse, sha256, StandIn, type ServedRepo } from './hub-server.ts'
import {
  collect,
  listFiles,
  lowrank,
  makeTinyModel,
  type Outcome,
  readJson,
  runScript,
  temporaryFolder,
  writeData,
} from './support.ts'

// The hub is a stand-in on real sockets; everything else is real.

const python = process.env['LOWRANK_PYTHON']
const folder = temporaryFolder()
const data = writeData(folder)
const hub = new StandIn()
const id = 'org/tiny'
const sharded = join(folder, 'sharded')
const weightsName = 'model.safetensors'
/** What is downloaded of a folder that a run has written. */
const needed = /^(config|generation_config|special_tokens|token)|^model/
let tiny: string
let repo: ServedRepo
let weights: Buffer

const variables = ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_TOKEN'] as const
const before = variables.map((name) => process.env[name])
let caches = 0
/** The cache of a test. */
let cache: string

beforeAll(async () => {
  tiny = await makeTinyModel(folder)
  await hub.start()
  repo = hub.add(id, tiny, {
    'README.md': 'A model.',
    'pytorch_model.bin': 'pickle',
    'consolidated.safetensors': 'other',
  })
  repo.branches.add('v1')
  weights = repo.files.get(weightsName)!
})
afterAll(() => hub.stop())
beforeEach(() => {
  cache = join(folder, `cache-${caches++}`)
  process.env['HF_ENDPOINT'] = hub.endpoint
  process.env['HF_HUB_CACHE'] = cache
  process.env['HF_TOKEN'] = 'hf_secret'
  delete process.env['HF_HUB_OFFLINE']
  delete process.env['TRANSFORMERS_OFFLINE']
})
afterEach(() => {
  hub.reset()
  variables.forEach((name, i) => {
    if (before[i] === undefined) delete process.env[name]
    else process.env[name] = before[i]
  })
})

/** The folder of a model by its name, and what was told. */
async function resolve(model: string, cancelled = (): boolean => false): Promise<{ folder: string; told: string[] }> {
  const told: string[] = []
  const { config } = await resultOf(fromHub({ model }, { cancelled }), ({ message }) => told.push(message))
  return { folder: config.model, told }
}

async function refusal(model: string, cancelled?: () => boolean): Promise<LowrankError> {
  const error: unknown = await resolve(model, cancelled).catch((thrown: unknown) => thrown)
  if (error instanceof LowrankError) return error
  throw new Error('not refused', { cause: error })
}

const modelFolder = (name = id): string => join(cache, `models--${name.replace('/', '--')}`)
const partial = (): string => join(modelFolder(), 'blobs', `${sha256(weights)}.lowrank.incomplete`)
const ranges = (): (string | undefined)[] =>
  hub.cdn.filter(({ url }) => url === `/${sha256(weights)}`).map(({ range }) => range)
const isWeights = (url: string | undefined): boolean => url === `/${sha256(weights)}`

/** Sends the beginning of the weights, and then nothing. */
function half(): void {
  hub.onCdn = ({ url }, response, content) => {
    if (!isWeights(url)) return false
    response.write(content?.subarray(0, 1000))
    return true
  }
}

describe('a model is named by its hub name', () => {
  test('it is downloaded into the cache as Python lays it out, by nothing but the files that are needed', async () => {
    const { folder: found } = await resolve(id)
    expect(found).toBe(join(modelFolder(), 'snapshots', repo.commit))
    expect(readFileSync(join(modelFolder(), 'refs', 'main'), 'utf8')).toBe(repo.commit)
    const expected = readdirSync(tiny).filter((name) => needed.test(name))
    expect(readdirSync(found).sort()).toEqual(expected.sort())
    expect(expected).toContain(weightsName)
    for (const name of expected) {
      expect(readFileSync(join(found, name)).equals(readFileSync(join(tiny, name))), name).toBe(true)
      expect(lstatSync(join(found, name)).isSymbolicLink()).toBe(true)
    }
    expect(readlinkSync(join(found, weightsName))).toBe(join('..', '..', 'blobs', sha256(weights)))
    expect(hub.hub.some(({ url }) => /README|\.bin|consolidated/.test(url.split('?')[0]!))).toBe(false)

    // The token is for the hub alone.
    expect(new Set(hub.hub.map(({ token }) => token))).toEqual(new Set(['Bearer hf_secret']))
    expect(hub.cdn.length).toBeGreaterThan(1)
    expect(new Set(hub.cdn.map(({ token }) => token))).toEqual(new Set([undefined]))

    // Then the commit of the branch alone is asked for, and of a commit nothing.
    hub.reset()
    expect((await resolve(id)).folder).toBe(found)
    expect(hub.hub.map(({ url }) => url.split('?')[0])).toEqual([`/api/models/${id}/revision/main`])
    expect((await resolve(`${id}@${repo.commit}`)).folder).toBe(found)
    expect(hub.hub.length + hub.cdn.length).toBe(1)
  })

  test('a folder of the name comes first, and paths are never names of the hub', async () => {
    const here = process.cwd()
    process.chdir(folder)
    try {
      mkdirSync(join(folder, 'org', 'local'), { recursive: true })
      expect((await resolve('org/local')).folder).toBe('org/local')
      for (const path of ['./org/tiny', '/org/tiny', 'tiny', 'org/tiny/', 'a/b/c', '../org/tiny', 'org/../tiny']) {
        expect((await resolve(path)).folder).toBe(path)
      }
    } finally {
      process.chdir(here)
    }
    expect(hub.hub).toEqual([])
  })

  test('losses are those of the folder; a run says where its model is from, and is replayed when the branch has moved', async () => {
    const model = `${id}@v1`
    const options = { maxLength: 64 }
    const [local, named] = [
      await directTasks.evaluate({ model: tiny, data: data.valid, ...options }),
      await directTasks.evaluate({ model, data: data.valid, ...options }),
    ]
    expect(named).toEqual(local)
    const outputDir = join(folder, 'run')
    const run = {
      ...options,
      model,
      train: data.train,
      outputDir,
      maxSteps: 2,
      saveSteps: 1,
      saveStrategy: 'steps',
    } as const
    await collect(run)
    const record = readJson(join(outputDir, 'run.json')) as { config: object; origins: object }
    expect(record.config).toMatchObject({ model })
    expect(record.origins).toEqual({ model: { id, revision: repo.commit } })
    expect(readJson(join(outputDir, 'adapter_config.json'))).toMatchObject({
      base_model_name_or_path: id,
      revision: 'v1',
    })
    const card = readFileSync(join(outputDir, 'README.md'), 'utf8')
    expect(card).toContain(`base_model: ${id}\n`)
    expect(card).toContain(`from_pretrained("${id}", revision="v1")`)
    expect(card).toContain(`--model ${id}@v1 --adapter`)

    // The branch moves on.
    const moved = hub.add(id, tiny, { 'generation_config.json': '{"eos_token_id": 1}' })
    repo.branches.delete('v1')
    moved.branches.add('v1')
    try {
      expect(await directTasks.replay(outputDir, { step: 2 })).toMatchObject({ equal: true })
      await expect(collect({ ...run, maxSteps: 3, resume: true })).rejects.toThrow(
        `model, its content: "${id}@${repo.commit}" (SHA-256`,
      )
    } finally {
      hub.repos.set(id, [repo])
      repo.branches.add('v1').add('main')
    }
    await collect({ ...run, resume: true })
    await collect({ ...run, model: tiny, resume: true })
  })

  test('weights in parts, and an adapter', async () => {
    const full = {
      model: tiny,
      train: data.train,
      outputDir: sharded,
      method: 'full',
      maxShardSize: '20KB',
      maxSteps: 1,
    } as const
    await collect({ ...full, maxLength: 64, saveStrategy: 'no' })
    hub.add('org/parts', sharded)
    const { folder: found } = await resolve('org/parts')
    const parts = listFiles(sharded).filter((name) => /-of-\d+\.safetensors$/.test(name))
    expect(parts.length).toBeGreaterThan(2)
    for (const name of parts) expect(existsSync(join(found, name))).toBe(true)

    const adapter = join(folder, 'adapter')
    await collect({
      model: tiny,
      train: data.train,
      outputDir: adapter,
      maxSteps: 1,
      maxLength: 64,
      saveStrategy: 'no',
    })
    hub.add('org/adapter', adapter)
    const evaluated = { model: id, data: data.valid, maxLength: 64 }
    const local = await directTasks.evaluate({ ...evaluated, adapter })
    expect(await directTasks.evaluate({ ...evaluated, adapter: 'org/adapter' })).toEqual(local)
    expect((await refusal('org/adapter')).hint).toBe(
      'It is an adapter: name it as the adapter, and its base model as the model.',
    )
  })
})

describe('a connection that breaks', () => {
  /** Sends half of what is asked for, then breaks. */
  const halves = (times: number): void => {
    let left = times
    hub.onCdn = ({ url, headers }, response, content) => {
      if (!isWeights(url) || content === undefined || left-- <= 0) return false
      const from = Number(/\d+/.exec(headers.range ?? '0')?.[0])
      const part = content.subarray(from, from + Math.ceil((content.length - from) / 2))
      const range = `bytes ${from}-${content.length - 1}/${content.length}`
      response.writeHead(from > 0 ? 206 : 200, {
        'content-length': content.length - from,
        ...(from > 0 ? { 'content-range': range } : {}),
      })
      response.write(part, () => setTimeout(() => response.destroy(), 20))
      return true
    }
  }

  test('is gone on with where it broke', async () => {
    halves(2)
    const { folder: found } = await resolve(id)
    expect(readFileSync(join(found, weightsName)).equals(weights)).toBe(true)
    const first = Math.ceil(weights.length / 2)
    expect(ranges()).toEqual([
      undefined,
      `bytes=${first}-`,
      `bytes=${first + Math.ceil((weights.length - first) / 2)}-`,
    ])
  })

  test('a cancelled download ends within a second, and goes on the next time', async () => {
    let asked = 0
    hub.onCdn = ({ url }, response, content) => {
      if (!isWeights(url) || content === undefined) return false
      response.writeHead(200, { 'content-length': content.length })
      response.write(content.subarray(0, 1000), () => (asked = performance.now()))
      return true
    }
    const error = await refusal(id, () => asked > 0 && performance.now() > asked + 300)
    expect(performance.now() - asked).toBeLessThan(1000)
    expect(error).toMatchObject({ code: 'cancelled' })
    expect(lstatSync(partial()).size).toBe(1000)
    hub.reset()
    const { folder: found } = await resolve(id)
    expect(ranges()).toEqual(['bytes=1000-'])
    expect(readFileSync(join(found, weightsName)).equals(weights)).toBe(true)
    expect(existsSync(partial())).toBe(false)
  })

  test('a host that sends all again, what was left damaged, and an answer that the hub is busy, are no harm', async () => {
    mkdirSync(join(modelFolder(), 'blobs'), { recursive: true })
    writeFileSync(partial(), 'damaged')
    let [busy, old] = [2, 1]
    hub.onHub = (_, response) => {
      if (busy-- <= 0) return false
      refuse(response, 503, '')
      return true
    }
    hub.onCdn = ({ url }, response, content) => {
      if (!isWeights(url)) return false
      // The address that the hub gave was good for a moment.
      if (old-- > 0) refuse(response, 403, '')
      else response.end(content)
      return true
    }
    const { folder: found } = await resolve(id)
    expect(ranges()).toEqual(['bytes=7-', 'bytes=7-'])
    expect(readFileSync(join(found, weightsName)).equals(weights)).toBe(true)

    process.env['HF_HUB_CACHE'] = cache = join(folder, `cache-${caches++}`)
    mkdirSync(join(modelFolder(), 'blobs'), { recursive: true })
    writeFileSync(partial(), 'damaged')
    hub.reset()
    await resolve(id)
    expect(ranges()).toEqual(['bytes=7-', undefined])
  })

  test('progress has bytes and time left', async () => {
    hub.onCdn = ({ url }, response, content) => {
      if (!isWeights(url) || content === undefined) return false
      response.writeHead(200, { 'content-length': content.length })
      response.write(content.subarray(0, 50_000))
      setTimeout(() => response.end(content.subarray(50_000)), 1300)
      return true
    }
    const { told } = await resolve(id)
    expect(
      told.filter((line) => /^downloading org\/tiny: 50,000 bytes of [\d,]+ bytes, \d+\.\d s left$/.test(line)),
    ).toHaveLength(1)
  })

  test('a host that is not reached is named, unless the cache has the model', async () => {
    const { folder: found } = await resolve(id)
    process.env['HF_ENDPOINT'] = 'http://127.0.0.1:9'
    const { folder: again, told } = await resolve(id)
    expect(again).toBe(found)
    expect(told).toEqual([expect.stringMatching(/127\.0\.0\.1:9: .*; continuing with commit \w{12} of the cache$/)])
    cache = process.env['HF_HUB_CACHE'] = join(folder, `cache-${caches++}`)
    expect(await refusal(id)).toMatchObject({
      code: 'io',
      message: expect.stringMatching(/^cannot download org\/tiny from 127\.0\.0\.1:9: /) as string,
    })
  })
})

describe('what is refused', () => {
  const answering = (status: number, code: string): void => {
    hub.onHub = (_, response) => {
      refuse(response, status, code)
      return true
    }
  }
  test.each([
    [401, '', 'hf_wrong', 'the token in HF_TOKEN is not accepted', 'Make a new one'],
    [
      401,
      'RepoNotFound',
      '',
      'there is no folder org/none here, and the hub has no such model that is public',
      'Set HF_TOKEN',
    ],
    [403, 'GatedRepo', 'hf_secret', 'org/none is gated', 'with the account that HF_TOKEN belongs to'],
    [403, 'GatedRepo', '', 'org/none is gated', 'then set HF_TOKEN'],
    [404, 'RepoNotFound', 'hf_secret', 'the hub has no such model for this token', 'Look at the spelling'],
    [404, 'RevisionNotFound', '', 'org/none has no revision "main"', '/org/none/tree/main'],
  ])('%i %s', async (status, code, token, message, hint) => {
    process.env['HF_TOKEN'] = token
    answering(status, code)
    const error = await refusal('org/none')
    expect(error).toMatchObject({ code: 'model' })
    expect(error.message).toContain(message)
    expect(error.message).toContain(`127.0.0.1:${new URL(hub.endpoint).port} answers ${status}`)
    expect(error.hint).toContain(hint)
    expect(hub.hub.length).toBe(1)
  })

  test('variables that name no hub, or no token, which is not told', async () => {
    process.env['HF_ENDPOINT'] = 'huggingface.co'
    expect((await refusal(id)).message).toBe('HF_ENDPOINT: "huggingface.co" is not the address of a hub')
    process.env['HF_ENDPOINT'] = hub.endpoint
    process.env['HF_TOKEN'] = 'hf_one\nhf_two'
    expect(await refusal(id)).toMatchObject({
      code: 'config',
      message: 'HF_TOKEN: it has characters that no token has',
    })
    expect(hub.hub).toEqual([])
  })

  test('a file with another SHA-256, of which nothing is left', async () => {
    hub.onCdn = ({ url }, response, content) => {
      if (!isWeights(url) || content === undefined) return false
      const wrong = Buffer.from(content)
      wrong[1000]! ^= 1
      response.end(wrong)
      return true
    }
    expect((await refusal(id)).message).toMatch(
      /^model\.safetensors of org\/tiny was damaged on its way .* SHA-256 is \w{64}, that of the hub /,
    )
    expect(readdirSync(join(modelFolder(), 'blobs')).filter((name) => name.startsWith(sha256(weights)))).toEqual([])
    expect(existsSync(join(modelFolder(), 'refs'))).toBe(false)
  })

  test('more bytes than a file has', async () => {
    hub.onCdn = ({ url }, response, content) => {
      if (!isWeights(url)) return false
      response.write(content)
      response.end('more')
      return true
    }
    expect((await refusal(id)).message).toContain(`more of ${weightsName} than the ${weights.length} bytes`)
  })

  test.skipIf(!existsSync('/dev/full'))('a full disk', async () => {
    mkdirSync(join(modelFolder(), 'blobs'), { recursive: true })
    symlinkSync('/dev/full', partial())
    expect(await refusal(id)).toMatchObject({
      code: 'io',
      message: expect.stringMatching(/^cannot write .*ENOSPC/) as string,
      hint: expect.stringContaining('The disk is full') as string,
    })
  })

  test('what the disk has no room for, before it is asked for', async () => {
    changeTree((entry) => (entry['path'] === weightsName ? { ...entry, size: 2 ** 52 } : entry))
    expect((await refusal(id)).message).toMatch(
      /^the disk has too little room for org\/tiny: 4503599\.63 GB are to come, /,
    )
    expect(ranges()).toEqual([])
  })

  test('pickle files, models of another kind, and repositories of none, before their weights are asked for', async () => {
    const config = repo.files.get('config.json')!
    const tokenizer = repo.files.get('tokenizer.json')!
    hub.add('org/pickle', undefined, { 'config.json': config, 'tokenizer.json': tokenizer, 'pytorch_model.bin': 'x' })
    expect(await refusal('org/pickle')).toMatchObject({
      code: 'model',
      message: 'org/pickle has no model.safetensors: it cannot be used as a model',
      hint: expect.stringContaining('It has pytorch_model.bin. Pickle files can run code') as string,
    })
    hub.add('org/gpt2', undefined, {
      'config.json': '{"model_type":"gpt2"}',
      'tokenizer.json': tokenizer,
      [weightsName]: weights,
    })
    expect((await refusal('org/gpt2')).message).toContain('model_type "gpt2" is not supported')
    expect(ranges()).toEqual([])
    hub.add('org/gguf', undefined, { 'model.gguf': 'x' })
    expect((await refusal('org/gguf')).hint).toContain('It has model.gguf')
  })

  /** Changes what is listed. */
  function changeTree(change: (entry: Record<string, unknown>) => unknown): void {
    hub.onHub = ({ url = '' }, response) => {
      if (!url.includes('/tree/')) return false
      const entries = [...repo.files].map(([path, content]) => ({
        type: 'file',
        path,
        size: content.length,
        oid: '1'.repeat(40),
        lfs: { oid: sha256(content), size: content.length },
      }))
      json(response, entries.map(change))
      return true
    }
  }

  test.each<[string, (entry: Record<string, unknown>) => unknown, RegExp]>([
    [
      'a hash that leads out of the cache',
      (entry) => ({ ...entry, lfs: { oid: '../../../evil' } }),
      /by no size and hash/,
    ],
    ['a size below zero', (entry) => ({ ...entry, size: -1 }), /by no size and hash/],
    ['no entries', () => null, /is not understood/],
    [
      'names that lead out',
      ({ path, ...entry }) => ({ ...entry, path: `../../${String(path)}` }),
      /has no config\.json/,
    ],
  ])('a hub that lists %s', async (_, change, message) => {
    changeTree(change)
    expect((await refusal(id)).message).toMatch(message)
    expect(listFiles(cache)).toEqual([])
  })

  test('a hub whose answers have no end, are no JSON, or go on elsewhere', async () => {
    const answers: [Parameters<typeof json>[1], Record<string, string>, string][] = [
      [[], { link: `<${hub.endpoint}/api/models/${id}/tree/x>; rel="next"` }, 'has no end'],
      [[], { link: '<http://localhost:1/next>; rel="next"' }, 'continues at another host, localhost:1'],
      [Array.from({ length: 10_001 }, () => ({ type: 'directory' })), {}, 'lists more than 10000 files'],
      ['x'.repeat(33e6), {}, 'has more than 32000000 bytes'],
    ]
    for (const [answer, headers, message] of answers) {
      hub.onHub = ({ url = '' }, response) => {
        if (!url.includes('/tree/')) return false
        json(response, answer, headers)
        return true
      }
      expect((await refusal(id)).message).toContain(message)
    }
    hub.onHub = (_, response) => {
      response.end('<html>Log in to the network</html>')
      return true
    }
    expect((await refusal(id)).message).toContain('is not JSON')
  })

  test('an index that names files elsewhere', async () => {
    for (const part of ['../../../evil.safetensors', '/etc/passwd', 'absent.safetensors', 7]) {
      const index = JSON.stringify({ weight_map: { a: part } })
      const files = ['config.json', 'tokenizer.json'].map((name) => [name, repo.files.get(name)!])
      hub.add('org/index', undefined, { ...Object.fromEntries(files), 'model.safetensors.index.json': index })
      expect((await refusal('org/index')).message).toMatch(
        /names .* which is not a file of weights|has no absent\.safetensors/,
      )
    }
  })
})

describe('offline', () => {
  test('the cache serves, and nothing is asked', async () => {
    const { folder: found } = await resolve(id)
    process.env['HF_HUB_OFFLINE'] = '1'
    hub.reset()
    expect(await resolve(id)).toEqual({ folder: found, told: [] })
    expect((await refusal(`${id}@other`)).message).toBe(
      `${id}: HF_HUB_OFFLINE is set, and the cache ${cache} does not know its revision "other"`,
    )
    expect(await refusal('org/other')).toMatchObject({
      message: `org/other: HF_HUB_OFFLINE is set, and the cache ${cache} has nothing of it`,
      hint: expect.stringContaining('Unset HF_HUB_OFFLINE') as string,
    })
    expect(hub.hub).toEqual([])
  })

  test('what is missing is named', async () => {
    half()
    await refusal(id, () => existsSync(partial()))
    mkdirSync(join(modelFolder(), 'refs'), { recursive: true })
    writeFileSync(join(modelFolder(), 'refs', 'main'), repo.commit)
    process.env['HF_HUB_OFFLINE'] = '1'
    expect((await refusal(id)).message).toContain(`has no ${weightsName} of it`)
  })
})

test('a thread of the API downloads, tells, and ends where it is asked to', async () => {
  half()
  const controller = new AbortController()
  let aborted = 0
  const begun = setInterval(() => {
    if (aborted > 0 || !existsSync(partial())) return
    aborted = performance.now()
    controller.abort()
  }, 20)
  await expect(loadModel({ model: id }, { signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled' })
  clearInterval(begun)
  expect(performance.now() - aborted).toBeLessThan(1000)
  hub.reset()
  await resolve(id)
  const told: string[] = []
  process.env['HF_ENDPOINT'] = 'http://127.0.0.1:9'
  await (await loadModel({ model: id }, { onStatus: (message) => told.push(message) })).close()
  expect(told).toEqual([expect.stringContaining('of the cache')])
})

test('two processes at once download once', async () => {
  hub.onCdn = ({ url }, response, content) => {
    if (!isWeights(url)) return false
    setTimeout(() => response.end(content), 1500)
    return true
  }
  const run = (output: string): Promise<Outcome> =>
    runScript(
      `import { quantize } from 'lowrank'
       await quantize({ model: '${id}', output: ${JSON.stringify(join(cache, output))} }, { onStatus: console.log })`,
      20,
    )
  const outcomes = await Promise.all([run('a'), run('b')])
  for (const { code, stderr } of outcomes) expect(code, stderr).toBe(0)
  expect(ranges()).toEqual([undefined])
  expect(
    outcomes.map(({ stdout }) => stdout.includes(`waiting for another download of ${id}: process `)).filter(Boolean),
  ).toEqual([true])
})

test('lowrank models lists the cache and removes from it', async () => {
  await resolve(id)
  const newer = hub.add(id, tiny, { 'generation_config.json': '{"eos_token_id": 1}' })
  await resolve(id).finally(() => {
    hub.repos.set(id, [repo])
    repo.branches.add('main')
  })
  half()
  hub.add('org/begun', tiny)
  const begun = join(modelFolder('org/begun'), 'blobs', `${sha256(weights)}.lowrank.incomplete`)
  await refusal('org/begun', () => existsSync(begun) && lstatSync(begun).size === 1000)
  const sizeOf = ({ files }: ServedRepo): number =>
    [...files].reduce((sum, [name, { length }]) => sum + (needed.test(name) ? length : 0), 0)

  const { stdout } = await lowrank(['models', '--json'])
  const models = JSON.parse(stdout) as Awaited<ReturnType<typeof listModels>>
  expect(models).toHaveLength(4)
  const found = (commit: string | undefined): unknown => models.find(({ revision }) => revision === commit)
  expect(found(repo.commit)).toMatchObject({
    id,
    refs: [],
    size: sizeOf(repo),
    folder: join(modelFolder(), 'snapshots', repo.commit),
  })
  expect(found(newer.commit)).toMatchObject({ id, refs: ['main'], size: sizeOf(newer) })
  expect(models.find(({ id: one, revision }) => one === 'org/begun' && revision === undefined)).toMatchObject({
    size: 1000,
  })
  expect((await lowrank(['models'])).stdout).toMatch(
    new RegExp(
      `^org/tiny +${newer.commit.slice(0, 12)} +main +[\\d,]+ bytes +\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d$`,
      'm',
    ),
  )

  for (const name of ['org/other', `${id}@abc`]) {
    expect(await lowrank(['models', 'rm', name])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: the cache .* has no org\/.*\nhint: /) as string,
    })
  }
  await expect(removeModel('../tiny')).rejects.toMatchObject({ code: 'model' })

  // What the other revision shares stays.
  const removed = await removeModel(`${id}@${repo.commit.slice(0, 8)}`)
  expect(removed).toMatchObject({ id, revisions: [repo.commit] })
  expect(removed.bytes).toBeLessThan(1000)
  process.env['HF_HUB_OFFLINE'] = '1'
  expect((await resolve(id)).folder).toBe(join(modelFolder(), 'snapshots', newer.commit))
  expect((await removeModel(id)).bytes).toBeGreaterThan(sizeOf(newer))
  expect(existsSync(modelFolder())).toBe(false)
  expect(await removeModel('org/begun')).toMatchObject({ id: 'org/begun' })
  expect(await listModels()).toEqual([])
})

describe.skipIf(python === undefined)('the Python library', () => {
  /** What a program of it prints. */
  const run = async (program: string, offline: boolean): Promise<string> => {
    const env = { ...process.env, HF_HUB_OFFLINE: offline ? '1' : '0', HF_HUB_DISABLE_PROGRESS_BARS: '1' }
    const { stdout } = await promisify(execFile)(python!, ['-c', `from huggingface_hub import *\n${program}`], { env })
    return stdout.trim()
  }

  test('finds what we have cached', async () => {
    const { folder: found } = await resolve(id)
    hub.reset()
    const program = `
print(snapshot_download('${id}'))
print(hf_hub_download('${id}', '${weightsName}', revision='main'))
print(try_to_load_from_cache('${id}', 'vocab.json') is file_download._CACHED_NO_EXIST)
info = scan_cache_dir()
print([(repo.repo_id, repo.size_on_disk, len(repo.revisions)) for repo in info.repos], info.warnings)`
    const size = listFiles(join(modelFolder(), 'blobs')).reduce(
      (sum, name) => sum + lstatSync(join(modelFolder(), 'blobs', name)).size,
      0,
    )
    expect((await run(`from huggingface_hub import file_download\n${program}`, true)).split('\n')).toEqual([
      found,
      join(found, weightsName),
      'True',
      `[('${id}', ${size}, 1)] []`,
    ])
    expect(hub.hub).toEqual([])
  })

  test('has cached what we find', async () => {
    const found = await run(`print(snapshot_download('${id}'))`, false)
    expect(found).toBe(join(modelFolder(), 'snapshots', repo.commit))
    process.env['HF_HUB_OFFLINE'] = '1'
    hub.reset()
    expect(await resolve(id)).toEqual({ folder: found, told: [] })
    expect(hub.hub).toEqual([])
    expect(await listModels()).toMatchObject([{ id, revision: repo.commit, refs: ['main'] }])
  })
})
