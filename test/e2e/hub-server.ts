import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

/** Answers a request instead of the stand-in; whether it has. */
export type Answer = (request: IncomingMessage, response: ServerResponse, content: Buffer | undefined) => boolean

/** What is served of a repository: contents by path, its one commit, and the branches at it. */
export interface ServedRepo {
  readonly commit: string
  readonly branches: Set<string>
  readonly files: Map<string, Buffer>
}

export interface Seen {
  readonly method: string
  readonly url: string
  readonly token: string | undefined
  readonly range: string | undefined
}

/**
 * A stand-in for the hub, on real sockets: its answers about commits and files, and a second host, to which it leads for large files, as the
 * hub does.
 */
export class StandIn {
  readonly repos = new Map<string, ServedRepo[]>()
  /** What was asked of each host. */
  readonly hub: Seen[] = []
  readonly cdn: Seen[] = []
  /** Answers instead of the stand-in. */
  onHub: Answer = () => false
  onCdn: Answer = () => false
  readonly #servers: readonly [Server, Server]

  constructor() {
    this.#servers = [
      createServer((request, response) => this.#answer(request, response)),
      createServer((request, response) => this.#serveLarge(request, response)),
    ]
  }

  async start(): Promise<void> {
    for (const server of this.#servers) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#servers[0].address() as AddressInfo).port}`
  }

  /** Forgets what was asked, and what was to be answered in its place. */
  reset(): void {
    this.hub.length = this.cdn.length = 0
    this.onHub = this.onCdn = () => false
  }

  /** Serves the files of a folder, and others, as a commit of `main`. */
  add(id: string, folder: string | undefined, others: Readonly<Record<string, string | Buffer>> = {}): ServedRepo {
    const names = folder === undefined ? [] : readdirSync(folder, { withFileTypes: true }).filter((one) => one.isFile())
    const files = new Map(names.map(({ name }) => [name, readFileSync(join(folder ?? '', name))]))
    for (const [name, content] of Object.entries(others)) files.set(name, Buffer.from(content))
    const hash = createHash('sha1').update(id)
    for (const [name, content] of files) hash.update(name).update(content)
    const repo = { commit: hash.digest('hex'), branches: new Set(['main']), files }
    for (const older of this.repos.get(id) ?? []) older.branches.delete('main')
    this.repos.set(id, [repo, ...(this.repos.get(id) ?? [])])
    return repo
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url ?? '/', this.endpoint)
    this.hub.push(seen(request))
    const [, id = '', kind, revision = '', name] =
      /^(?:\/api\/models|(?:\/api)?\/datasets)?\/([^/]+\/[^/]+)\/(revision|tree|resolve)\/([^/]+)(?:\/(.+))?$/.exec(
        pathname,
      ) ?? []
    const wanted = decodeURIComponent(revision)
    const repos = this.repos.get(id)
    const repo = repos?.find(({ commit, branches }) => commit === wanted || branches.has(wanted))
    const content = repo?.files.get(decodeURIComponent(name ?? ''))
    if (this.onHub(request, response, content)) return
    if (repos === undefined) return refuse(response, 401, 'RepoNotFound')
    if (repo === undefined) return refuse(response, 404, 'RevisionNotFound')
    const { commit, files } = repo
    if (kind === 'revision')
      return json(response, { _id: '1', id, sha: commit, siblings: [], tags: [], private: false })
    if (kind === 'tree') {
      // Three at a time, to be asked for the rest.
      const from = Number(searchParams.get('cursor') ?? 0)
      const entries = [...files].slice(from, from + 3).map(([path, bytes]) => entryOf(path, bytes))
      const link = `<${this.endpoint}${pathname}?cursor=${from + 3}>; rel="next"`
      return json(response, entries, from + 3 < files.size ? { link } : {})
    }
    if (content === undefined) return refuse(response, 404, 'EntryNotFound')
    const large = isLarge(name ?? '')
    const etag = `"${large ? sha256(content) : gitHash(content)}"`
    const head = { 'x-repo-commit': commit, 'x-linked-etag': etag, 'x-linked-size': String(content.length) }
    if (large) {
      const { port } = this.#servers[1].address() as AddressInfo
      // Another host by its name, too.
      const location = `http://localhost:${port}/${sha256(content)}`
      response.writeHead(302, { ...head, location }).end()
    } else {
      response.writeHead(200, { ...head, etag, 'content-length': content.length })
      response.end(request.method === 'HEAD' ? undefined : content)
    }
  }

  #serveLarge(request: IncomingMessage, response: ServerResponse): void {
    this.cdn.push(seen(request))
    const hash = request.url?.slice(1)
    const contents = [...this.repos.values()].flat().flatMap(({ files }) => [...files.values()])
    const content = contents.find((one) => sha256(one) === hash)
    if (this.onCdn(request, response, content)) return
    if (content === undefined) return refuse(response, 404, '')
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    const [from, end] = [Number(first), last === '' ? content.length : Math.min(content.length, Number(last) + 1)]
    const part = from > 0 || end < content.length
    const range = { 'content-range': `bytes ${from}-${end - 1}/${content.length}` }
    response.writeHead(part ? 206 : 200, { 'content-length': end - from, ...(part ? range : {}) })
    response.end(request.method === 'HEAD' ? undefined : content.subarray(from, end))
  }
}

function seen({ method = '', url = '', headers }: IncomingMessage): Seen {
  return { method, url, token: headers.authorization, range: headers.range }
}

/** As the hub, which keeps large files apart from git. */
function isLarge(name: string): boolean {
  return /\.(safetensors|bin|parquet)$/.test(name) || name === 'tokenizer.json'
}

function entryOf(path: string, content: Buffer): object {
  const entry = { type: 'file', path, size: content.length, oid: gitHash(content) }
  return isLarge(path)
    ? { ...entry, oid: '0'.repeat(40), lfs: { oid: sha256(content), size: content.length, pointerSize: 134 } }
    : entry
}

export function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}

function gitHash(content: Buffer): string {
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
}

export function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/json', ...(code === '' ? {} : { 'x-error-code': code }) })
  response.end(JSON.stringify({ error: code }))
}

export function json(response: ServerResponse, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
}
