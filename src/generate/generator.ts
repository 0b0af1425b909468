import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import type { KeyValueCache } from '../engine/cached/key-value-cache.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { SamplingOptions } from './processors.ts'
import { PrefixCache } from './prefix-cache.ts'
import { Sampler, type TokenChance } from './sampler.ts'
import { TextStream } from './text-stream.ts'
import { commonLength } from '../util/vectors.ts'

/** What is to be continued, and how. */
export interface GenerateRequest {
  readonly ids: Int32Array
  readonly adapter?: LoadedAdapter | undefined
  readonly maxNewTokens: number
  readonly sampling: SamplingOptions
  readonly seed: number
  /** Tokens that end it; none of their text is given. */
  readonly endIds: ReadonlySet<number>
  /** Texts that end it; they are not given. */
  readonly stops?: readonly string[]
  /** Of how many of the likeliest tokens chances are told; undefined: of none, nor of the token itself. */
  readonly logprobs?: number | undefined
}

/** Why a text ended: an end token, a stop text, or as many tokens as were asked for. */
export type FinishReason = 'eos' | 'stop' | 'length'

/** A token, and the text that became certain by it. */
export interface GeneratedToken {
  /** Which of the requests. */
  readonly index: number
  readonly id: number
  readonly text: string
  readonly logprob?: number
  readonly top?: readonly TokenChance[]
  /** With the last token. */
  readonly finish?: FinishReason
}

/** A text in the making: a row of the batch. */
interface Row {
  readonly index: number
  readonly request: GenerateRequest
  readonly sampler: Sampler
  readonly stream: TextStream
  readonly made: number[]
  /** How many tokens went through the model before the row joined the batch. */
  begun: number
  /** What was taken last, and is fed next. */
  last: number
}

/** Tokens of a prompt that go through the model at once. */
const chunk = 256

interface GeneratorLimits {
  /** Bytes of what earlier texts left in their caches, for those that begin alike. */
  readonly prefixBytes?: number
  /** Most texts that are made together. */
  readonly mostRows?: number
}

/**
 * Continues texts, several in a batch. Prompts go through the model alone, in chunks, and join the batch; a text that ends makes room for
 * the next.
 */
export class Generator {
  readonly #decoder: CachedDecoder
  readonly #tokenizer: Pick<Tokenizer, 'decode'>
  readonly #prefixes: PrefixCache
  readonly #mostRows: number

  constructor(
    decoder: CachedDecoder,
    tokenizer: Pick<Tokenizer, 'decode'>,
    { prefixBytes = 2 ** 28, mostRows = 32 }: GeneratorLimits = {},
  ) {
    this.#decoder = decoder
    this.#mostRows = mostRows
    this.#tokenizer = tokenizer
    this.#prefixes = new PrefixCache(prefixBytes)
  }

  /**
   * The tokens of each text as they come, until all have ended or `cancelled()` says so.
   *
   * @throws LowrankError `model`: the weights give logits that are not finite.
   */
  async *generate(
    requests: readonly GenerateRequest[],
    cancelled: () => boolean = () => false,
  ): AsyncGenerator<GeneratedToken, void> {
    const waiting = requests.map((request, index) => newRow(index, request))
    const batch = new Batch(this.#decoder, this.#mostRows)
    while (!cancelled()) {
      const next = waiting[0]
      if (next !== undefined && batch.takes(next.request.adapter)) {
        waiting.shift()
        const begun = await this.#begin(next, cancelled)
        if (begun === undefined) return
        this.#keepFor(waiting[0], next, begun.cache)
        const token = await this.#token(next, begun.logits)
        yield token
        if (token.finish === undefined) batch.join(next, begun.cache)
        else this.#keep(next, begun.cache)
        continue
      }
      if (batch.rows.length === 0) return
      const restarted = batch.leaveRestarted()
      waiting.unshift(...restarted)
      if (restarted.length > 0) continue
      const logits = await batch.step()
      const tokens = await this.#tokens(batch.rows, logits)
      yield* tokens
      for (let i = tokens.length - 1; i >= 0; i--) {
        if (tokens[i]?.finish === undefined) continue
        const { row, cache } = batch.leave(i)
        this.#keep(row, cache)
      }
    }
  }

  /** Takes a prompt, and what was made of it, through the model; of one that begins as an earlier text did, only what is new. */
  async #begin(
    row: Row,
    cancelled: () => boolean,
  ): Promise<{ readonly cache: KeyValueCache; readonly logits: Float32Array } | undefined> {
    const [ids, { adapter }] = [idsOf(row), row.request]
    const known = this.#prefixes.take(ids, { adapter, regime: this.#decoder.regime(ids.length) })
    const { cache, length } = known ?? { cache: this.#decoder.newCache(), length: 0 }
    row.begun = ids.length
    for (let start = length; start < ids.length; start += chunk) {
      if (cancelled()) return undefined
      const end = Math.min(start + chunk, ids.length)
      const logits = await this.#decoder.run(cache, {
        ids: ids.slice(start, end),
        adapters: [adapter],
        logits: end === ids.length ? 'last' : 'none',
        length: ids.length,
      })
      if (logits !== undefined) return { cache, logits }
    }
    return undefined
  }

  async #token(row: Row, logits: Float32Array): Promise<GeneratedToken> {
    const [token] = await this.#tokens([row], logits)
    return token!
  }

  /** Takes the next token of each row from logits [rows, vocabulary]. */
  async #tokens(rows: readonly Row[], logits: Float32Array): Promise<GeneratedToken[]> {
    const vocabulary = logits.length / rows.length
    const taken = rows.map(({ sampler, request, made }, i) =>
      sampler.take(logits.subarray(i * vocabulary, (i + 1) * vocabulary), { prompt: request.ids, made }),
    )
    const pairs = rows.map((row, i) => {
      const { id } = taken[i]!
      row.made.push(id)
      row.last = id
      return row.request.endIds.has(id) ? row.stream.pending() : row.stream.add(id)
    })
    const texts = await this.#tokenizer.decode(pairs.flat())
    return rows.map((row, i) => {
      const { id, logprob, top } = taken[i]!
      const ended = row.request.endIds.has(id)
      const full = row.made.length >= row.request.maxNewTokens
      const text = row.stream.take([texts[2 * i] ?? '', texts[2 * i + 1] ?? ''], { last: ended || full })
      const finish = ended ? 'eos' : row.stream.stopped ? 'stop' : full ? 'length' : undefined
      return {
        index: row.index,
        id,
        text: finish === undefined ? text : text + row.stream.end(),
        ...(row.request.logprobs !== undefined && { logprob, top }),
        ...(finish !== undefined && { finish }),
      }
    })
  }

  /** Keeps a copy of what the next text has in common with this one, where most of its prompt is: they are made at the same time. */
  #keepFor(next: Row | undefined, row: Row, cache: KeyValueCache): void {
    if (next === undefined || next.request.adapter !== row.request.adapter) return
    const [ids, wanted] = [idsOf(row), idsOf(next)]
    const regime = this.#decoder.regime(ids.length)
    const common = commonLength(ids, wanted)
    if (2 * common < wanted.length || regime !== this.#decoder.regime(wanted.length)) return
    this.#prefixes.keep(ids.subarray(0, common), { adapter: row.request.adapter, regime }, cache.row(0, 1, common))
  }

  /** Keeps what a text left in the cache, for one that goes on from it. */
  #keep(row: Row, cache: KeyValueCache): void {
    const length = cache.lengthOf(0)
    const regime = this.#decoder.regime(length)
    // Its first keys were made for another length.
    if (regime !== this.#decoder.regime(row.begun)) return
    this.#prefixes.keep(idsOf(row).subarray(0, length), { adapter: row.request.adapter, regime }, cache)
  }
}

function newRow(index: number, request: GenerateRequest): Row {
  const { sampling, seed, logprobs, stops } = request
  const sampler = new Sampler(sampling, { seed, row: index, logprobs })
  return { index, request, sampler, stream: new TextStream(stops), made: [], begun: 0, last: -1 }
}

/** The prompt and what was made of it. */
function idsOf({ request, made }: Row): Int32Array {
  return Int32Array.from([...request.ids, ...made])
}

/** Rows that are computed together. */
class Batch {
  readonly rows: Row[] = []
  readonly #decoder: CachedDecoder
  readonly #mostRows: number
  #cache: KeyValueCache | undefined

  constructor(decoder: CachedDecoder, mostRows: number) {
    this.#decoder = decoder
    this.#mostRows = mostRows
  }

  /** Whether a row with this adapter may join. An adapter that replaces weights goes with no other. */
  takes(adapter: LoadedAdapter | undefined): boolean {
    if (this.rows.length >= this.#mostRows) return false
    const others = this.rows.map(({ request }) => request.adapter).filter((other) => other !== adapter)
    return others.length === 0 || ![adapter, ...others].some((one) => (one?.replaced.size ?? 0) > 0)
  }

  join(row: Row, cache: KeyValueCache): void {
    this.rows.push(row)
    if (this.#cache === undefined || this.#cache.rows === 0) this.#cache = cache
    else this.#cache.join(cache)
  }

  /** Takes out the rows whose next token is no continuation of what the cache holds of them. */
  leaveRestarted(): Row[] {
    const found: Row[] = []
    for (let i = this.rows.length - 1; i >= 0; i--) {
      const { request, made } = this.rows[i]!
      if (this.#decoder.restartsAt(request.ids.length + made.length)) found.push(this.leave(i).row)
    }
    return found
  }

  /** -> logits [rows, vocabulary] of what follows. */
  async step(): Promise<Float32Array> {
    const adapters = this.rows.map(({ request }) => request.adapter)
    const ids = Int32Array.from(this.rows, ({ last }) => last)
    const logits = await this.#decoder.run(this.#cache!, { ids, adapters, logits: 'last' })
    return logits!
  }

  /** Takes out a row, with what it has in the cache; the last one takes its place. */
  leave(place: number): { readonly row: Row; readonly cache: KeyValueCache } {
    const row = this.rows[place]!
    const all = this.#cache!
    const last = this.rows.pop()!
    if (this.rows.length === 0) {
      this.#cache = undefined
      return { row, cache: all }
    }
    const cache = all.row(place)
    all.remove(place)
    if (last !== row) this.rows[place] = last
    return { row, cache }
  }
}
