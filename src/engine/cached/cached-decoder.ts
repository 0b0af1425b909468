import type { Program } from '../../graph/program.ts'
import { fedPart } from '../../storage/formats.ts'
import { joinRows } from '../../storage/in-nbits.ts'
import type { StoredWeight } from '../../storage/stored.ts'
import { internalError } from '../../util/errors.ts'
import { embedded } from '../embedding.ts'
import { f32Tensor, floats, needed, type Feeds, type HostTensor, type Runtime } from '../onnxruntime/runtime.ts'
import { idTensor, type PositionKind } from '../positions.ts'
import { WeightFeeds, type FedWeight, type WeightLookup, type WeightStore } from '../weights.ts'
import { adapterSet, type AdapterSet, type LoadedAdapter } from './adapters.ts'
import { type CacheShape, KeyValueCache } from './key-value-cache.ts'
import { CachePositions } from './cache-positions.ts'

/** A part of the decoder as one program: see `CachedStage` of the model. */
interface CachedPart {
  readonly program: Program
  readonly from: number
  readonly count: number
  readonly result: 'y' | 'logits' | 'hidden'
  /** How the layers of each kind see positions, in the order of their ports. */
  readonly kinds: readonly PositionKind[]
  readonly parameters: readonly FedWeight[]
  readonly adapted: readonly {
    readonly port: string
    readonly path: string
    readonly shape: { readonly inFeatures: number; readonly outFeatures: number }
  }[]
}

type ReadyPart = CachedPart & {
  /** Parameters that are no constants. */
  readonly fed: readonly FedWeight[]
}

/** What programs for adapters are fed where no row has one. */
const noAdapter: LoadedAdapter = { rank: 1, scale: 0, modules: new Map(), replaced: new Map() }

interface CachedDecoderOptions {
  readonly runtime: Runtime
  readonly shape: CacheShape
  /** Query heads for each of its heads. */
  readonly group: number
  readonly weights: Pick<WeightStore, 'resident' | 'block'>
  readonly embedding: { readonly name: string; readonly scale: number }
  /** How its layers see positions. */
  readonly kinds: readonly PositionKind[]
  readonly write: (what: WantedProgram) => readonly CachedPart[]
  /** Weights that are constants of the programs, read anew for each that is compiled; undefined for those that are fed. */
  readonly constant?: ((name: string) => (() => Promise<StoredWeight>) | undefined) | undefined
}

/** What programs are written for. */
interface WantedProgram {
  readonly result: 'logits' | 'hidden'
  /** Paths of the modules that may have an adapter. */
  readonly adapted: ReadonlySet<string>
  /** Names of the weights that others in f32 stand for. */
  readonly replaced: ReadonlySet<string>
}

/** New tokens of each row of a cache. */
interface NewTokens {
  /** [rows * seq]: as many for each row. */
  readonly ids: Int32Array
  /** Of each row; undefined: the base model. Adapters that replace weights of the base go with no other. */
  readonly adapters: readonly (LoadedAdapter | undefined)[]
  /** Tokens that a row is known to get, where the angles of positions depend on it; by default those that it then has. */
  readonly length?: number
}

/** For which of the new tokens logits are computed. */
type WantedLogits = 'none' | 'last' | 'all'

/** A decoder that reads and extends a cache: for each new token it computes what is new. */
export class CachedDecoder {
  readonly #o: CachedDecoderOptions
  readonly #feeds = new WeightFeeds()
  readonly #positions: CachePositions
  readonly #parts = new Map<string, readonly ReadyPart[]>()
  #fixed: { readonly paths: ReadonlySet<string>; readonly parts: readonly ReadyPart[] } | undefined
  #ran:
    | {
        readonly result: WantedProgram['result']
        readonly adapters: readonly LoadedAdapter[]
        readonly parts: readonly ReadyPart[]
      }
    | undefined
  /** The adapters of the last run that had some, as one. */
  #set: { readonly adapters: readonly LoadedAdapter[]; readonly set: AdapterSet } | undefined

  constructor(options: CachedDecoderOptions) {
    this.#o = options
    this.#positions = new CachePositions(options.group)
  }

  newCache(rows = 1): KeyValueCache {
    return new KeyValueCache(this.#o.shape, rows)
  }

  /** Equal for lengths whose texts see positions alike: only then may one go on from what is remembered of another. */
  regime(length: number): string {
    return this.#o.kinds.map(({ rope }) => rope?.regime?.(length) ?? 0).join()
  }

  /** Whether a text that grows to this length is no continuation of what is remembered, and has to be computed again. */
  restartsAt(length: number): boolean {
    return this.#o.kinds.some(({ rope }) => {
      return rope?.restarts === true && rope.regime?.(length) !== rope.regime?.(length - 1)
    })
  }

  /** Compiles what runs with this adapter need, so that the first one does not wait for it. */
  async prepare(adapter: LoadedAdapter | undefined): Promise<void> {
    const parts = await this.#ready('logits', adapter === undefined ? [] : [adapter])
    for (const { program } of parts) await this.#o.runtime.prepare(program)
  }

  /** Whether an adapter replaces a weight that is a constant of the programs. */
  replacesConstant({ replaced }: LoadedAdapter): string | undefined {
    return [...replaced.keys()].find((name) => this.#o.constant?.(name) !== undefined)
  }

  /** Computes new tokens of each row, and adds them to the cache. -> logits [wanted rows, vocabulary], if any are wanted. */
  async run(
    cache: KeyValueCache,
    { logits, ...tokens }: NewTokens & { readonly logits: WantedLogits },
  ): Promise<Float32Array | undefined> {
    return this.#run(cache, tokens, 'logits', wantedRows(cache.rows, tokens.ids.length / cache.rows, logits))
  }

  /**
   * The same for what the head would read. -> [rows * seq, hidden], of each new token.
   *
   * Not where weights are constants of the programs: one program holds them at a time.
   */
  async hidden(cache: KeyValueCache, tokens: NewTokens): Promise<Float32Array> {
    if (this.#o.constant !== undefined) throw internalError('hidden states of programs that hold constants')
    const found = await this.#run(cache, tokens, 'hidden', wantedRows(1, tokens.ids.length, 'all'))
    if (found === undefined) throw internalError('hidden states of no tokens')
    return found
  }

  async #run(
    cache: KeyValueCache,
    { ids, adapters, length }: NewTokens,
    result: WantedProgram['result'],
    wanted: Int32Array,
  ): Promise<Float32Array | undefined> {
    const { rows } = cache
    const seq = ids.length / rows
    if (!Number.isInteger(seq) || adapters.length !== rows) throw internalError(`${ids.length} tokens for ${rows} rows`)
    const used = [...new Set(adapters)].filter((adapter) => adapter !== undefined)
    // Most steps are for the adapters of the step before.
    const last = this.#ran
    const again = last !== undefined && last.result === result && alike(last.adapters, used)
    const parts = again ? last.parts : await this.#ready(result, used)
    this.#ran = { result, adapters: used, parts }
    const replaced = used[0]?.replaced ?? new Map<string, StoredWeight>()
    if (replaced.size > 0 && adapters.some((one) => one !== used[0])) throw alone()
    const adapted = parts.some((part) => part.adapted.length > 0)
    // Programs that hold constants may be for adapters that nobody uses now.
    const set = adapted ? this.#setOf(used.length === 0 ? [noAdapter] : used) : undefined
    const longest = Math.max(...Array.from({ length: rows }, (_, row) => cache.lengthOf(row)))
    cache.reserve(longest + seq)
    const common: Feeds = {
      lengths: idTensor(Int32Array.of(cache.capacity, seq)),
      rows: idTensor(wanted),
      ...(set && scaleFeeds(set, adapters, wanted, seq)),
    }
    const before = this.#positions.of(cache, seq, length)
    const embedding = replaced.get(this.#o.embedding.name) ?? this.#o.weights.resident(this.#o.embedding.name)
    let x = embedded(embedding, ids, { scale: this.#o.embedding.scale, rows, seq })
    for (const [i, part] of parts.entries()) {
      if (part.result !== 'y' && part.count === 0 && wanted.length === 0) break
      const lookup = await this.#lookup(part, parts[i + 1] ?? parts[0], replaced)
      const feeds = {
        x,
        ...common,
        ...before(part.kinds),
        ...pastFeeds(cache, part),
        ...(set && adapterFeeds(set, part)),
        ...this.#feeds.of(part.fed, part.program, lookup),
      }
      const results = await this.#o.runtime.run(part.program, feeds)
      for (let n = 0; n < part.count; n++) {
        cache.append(part.from + n, floats(results[`${n}.keys`]), floats(results[`${n}.values`]), seq)
      }
      x = needed(results[part.result])
    }
    cache.advance(seq)
    return wanted.length === 0 ? undefined : floats(x)
  }

  async #lookup(
    { from, count }: CachedPart,
    next: CachedPart | undefined,
    replaced: ReadonlyMap<string, StoredWeight>,
  ): Promise<WeightLookup> {
    const { weights } = this.#o
    const lookup = count === 1 ? await weights.block(from, next?.count === 1 ? next.from : 0) : weights.resident
    // What is computed of a weight is kept as long as it is looked up in the same place.
    return replaced.size === 0 ? lookup : (name) => replaced.get(name) ?? lookup(name)
  }

  async #ready(result: WantedProgram['result'], adapters: readonly LoadedAdapter[]): Promise<readonly ReadyPart[]> {
    const { constant } = this.#o
    const paths = new Set(adapters.flatMap(({ modules }) => [...modules.keys()]))
    if (constant === undefined) {
      const replaced = new Set(adapters.flatMap((adapter) => [...adapter.replaced.keys()]))
      return this.#written({ result, adapted: paths, replaced })
    }
    // One program holds the constants at a time: it serves all adapters so far.
    const current = this.#fixed
    if (current !== undefined && [...paths].every((path) => current.paths.has(path))) return current.parts
    const all = new Set([...(current?.paths ?? []), ...paths])
    this.#fixed = undefined
    this.#ran = undefined
    for (const { program } of current?.parts ?? []) await this.#o.runtime.release(program)
    const parts = this.#written({ result, adapted: all, replaced: new Set() })
    for (const part of parts) await this.#fix(part, constant)
    this.#fixed = { paths: all, parts }
    return parts
  }

  async #fix(
    { program, parameters }: ReadyPart,
    constant: NonNullable<CachedDecoderOptions['constant']>,
  ): Promise<void> {
    const feeds: Record<string, HostTensor> = {}
    for (const { name, joined = [name], inputs } of parameters) {
      const loads = joined.map(constant).filter((load) => load !== undefined)
      if (loads.length === 0) continue
      const weights: StoredWeight[] = []
      for (const load of loads) weights.push(await load())
      const weight = joinRows(weights)
      for (const input of inputs) {
        const fed = fedPart(weight, input)
        if (!('data' in fed)) throw internalError(`${name} is computed, and so no constant`)
        feeds[input.port] = { dtype: input.dtype, shape: input.shape, data: fed.data }
      }
    }
    await this.#o.runtime.fix(program, feeds)
  }

  #written(what: WantedProgram): readonly ReadyPart[] {
    const names = [what.adapted, what.replaced].map((all) => [...all].sort().join(' '))
    const key = [what.result, ...names].join(' | ')
    const known = this.#parts.get(key)
    if (known !== undefined) return known
    const { constant = () => undefined } = this.#o
    const made = this.#o.write(what).map((part) => {
      return { ...part, fed: part.parameters.filter(({ name }) => constant(name) === undefined) }
    })
    this.#parts.set(key, made)
    return made
  }

  #setOf(adapters: readonly LoadedAdapter[]): AdapterSet {
    const last = this.#set
    if (last !== undefined && alike(last.adapters, adapters)) return last.set
    const set = adapterSet(adapters)
    this.#set = { adapters, set }
    return set
  }
}

function alone(): Error {
  return internalError('an adapter that replaces weights of the base in a batch with others')
}

function alike(some: readonly LoadedAdapter[], others: readonly LoadedAdapter[]): boolean {
  return some.length === others.length && some.every((one, i) => one === others[i])
}

function wantedRows(rows: number, seq: number, logits: WantedLogits): Int32Array {
  if (logits === 'none') return new Int32Array()
  if (logits === 'all') return Int32Array.from({ length: rows * seq }, (_, i) => i)
  return Int32Array.from({ length: rows }, (_, row) => (row + 1) * seq - 1)
}

function pastFeeds(cache: KeyValueCache, { from, count }: CachedPart): Feeds {
  const { kvHeads, headDim } = cache.shape
  const shape = [cache.rows, kvHeads, cache.capacity, headDim]
  const feeds: Record<string, HostTensor> = {}
  for (let n = 0; n < count; n++) {
    const { keys, values } = cache.layer(from + n)
    feeds[`${n}.past.keys`] = f32Tensor(keys, shape)
    feeds[`${n}.past.values`] = f32Tensor(values, shape)
  }
  return feeds
}

function adapterFeeds(set: AdapterSet, { adapted }: CachedPart): Feeds {
  const feeds: Record<string, HostTensor> = {}
  for (const { port, path, shape } of adapted) {
    const { a, b } = set.matrices(path, shape)
    feeds[`${port}.lora_A`] = f32Tensor(a, [set.rank, shape.inFeatures])
    feeds[`${port}.lora_B`] = f32Tensor(b, [set.rank, shape.outFeatures])
  }
  return feeds
}

/** The factors of each row, and those of the rows whose logits are wanted. */
function scaleFeeds(
  set: AdapterSet,
  adapters: readonly (LoadedAdapter | undefined)[],
  wanted: Int32Array,
  seq: number,
): Feeds {
  const { rank } = set
  const ofRows = Array.from(wanted, (position) => adapters[Math.floor(position / seq)])
  return {
    scales: f32Tensor(set.scales(adapters), [adapters.length, 1, rank]),
    'scales.rows': f32Tensor(set.scales(ofRows), [wanted.length, rank]),
  }
}
