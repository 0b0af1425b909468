import { setTimeout as sleep } from 'node:timers/promises'
import { parseJson } from '../formats/json.ts'
import { type ErrorCode, LowrankError, messageOf } from '../util/errors.ts'

/** What the hub keeps apart; an adapter is a model there. */
export type RepoKind = 'model' | 'dataset'

/** The hub that is asked, and what for. */
export interface Asked {
  /** `https://huggingface.co`, without a slash at its end. */
  readonly endpoint: string
  readonly token: string | undefined
  readonly kind: RepoKind
  /** The model, adapter or dataset: `org/name`. */
  readonly id: string
  /** What the user named, or `main`. */
  readonly revision: string
  readonly signal: AbortSignal
}

/** Where the hub has a repository. */
export function addressOf({ endpoint, kind, id }: Pick<Asked, 'endpoint' | 'kind' | 'id'>): string {
  return kind === 'model' ? `${endpoint}/${id}` : `${endpoint}/datasets/${id}`
}

/** What went wrong where the hub has not what was named. */
export function codeOf({ kind }: Pick<Asked, 'kind'>): ErrorCode {
  return kind === 'model' ? 'model' : 'data'
}

/** The hub as the variables of the environment name it. */
export function hubOf(env: NodeJS.ProcessEnv): Pick<Asked, 'endpoint' | 'token'> & { readonly offline: boolean } {
  const isOn = /^(1|on|yes|true)$/i
  const endpoint = (env['HF_ENDPOINT']?.trim() || 'https://huggingface.co').replace(/\/+$/, '')
  if (!URL.canParse(endpoint) || !/^https?:/i.test(endpoint)) {
    throw new LowrankError('config', `HF_ENDPOINT: "${endpoint}" is not the address of a hub`, {
      hint: 'An address such as https://huggingface.co is expected.',
    })
  }
  const token = env['HF_TOKEN']?.trim() || undefined
  // No header can hold it, and the error that says so would spell it.
  if (token !== undefined && !/^[!-~]+$/.test(token)) {
    throw new LowrankError('config', 'HF_TOKEN: it has characters that no token has', {
      hint: 'A token is one word, such as hf_abc.',
    })
  }
  return {
    endpoint,
    token,
    offline: [env['HF_HUB_OFFLINE'], env['TRANSFORMERS_OFFLINE']].some((value) => isOn.test(value ?? '')),
  }
}

/** Most bytes of an answer in JSON, and most answers: a list of a thousand files is one, of a quarter of a million bytes. */
const [maxAnswer, maxAnswers] = [32e6, 50]
/** Milliseconds until the hub has answered a question. */
const patience = 30_000
/** Milliseconds before the second try, twice as long before each further one, and at most. */
const [pause, longestPause] = [250, 8000]

/**
 * `fetch` for the client of the hub: the token goes to the hub alone, what is refused is an error in words, and no answer is endless. What
 * fails for the moment is asked for again.
 */
export function apiFetch(asked: Asked): typeof fetch {
  let answers = 0
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input, asked.endpoint)
    if (url.origin !== new URL(asked.endpoint).origin) {
      throw strange(asked, `continues at another host, ${url.host}`)
    }
    if (++answers > maxAnswers) throw strange(asked, 'has no end')
    return retried(asked, async () => {
      const signal = AbortSignal.any([asked.signal, AbortSignal.timeout(patience)])
      const headers = new Headers(init?.headers)
      for (const [name, value] of Object.entries(authorization(asked))) headers.set(name, value)
      const response = await fetch(url, { ...init, headers, signal })
      if (!response.ok) throw await refusal(response, asked)
      const text = await boundedText(response, asked)
      try {
        parseJson(text)
      } catch (error) {
        throw strange(asked, `is not JSON: ${messageOf(error)}`)
      }
      return new Response(text, { headers: linkOf(response) })
    })
  }
}

/** The hub answers what no hub does. */
export function strange(asked: Asked, what: string): LowrankError {
  const { endpoint, id } = asked
  return new LowrankError(codeOf(asked), `the answer of ${hostOf(endpoint)} about ${id} ${what}`, {
    hint: 'Is HF_ENDPOINT the address of a hub? A proxy may also have answered in its place.',
  })
}

/**
 * Does something with the hub, again where it failed for the moment: `attempts` times, as long as nothing comes of it. `progress` is a
 * number that changes where something does.
 */
export async function retried<T>(
  asked: Asked,
  attempt: () => Promise<T>,
  { attempts = 3, progress = (): number => 0 } = {},
): Promise<T> {
  let [tries, before] = [0, progress()]
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      const passing = error instanceof LowrankError ? error instanceof Refusal && error.passing : true
      tries = progress() === before ? tries + 1 : 1
      before = progress()
      if (asked.signal.aborted || !passing) throw error
      if (tries === attempts) throw error instanceof LowrankError ? error : unreachable(error, asked)
      await sleep(Math.min(longestPause, pause * 2 ** (tries - 1)), undefined, { signal: asked.signal })
    }
  }
}

/** The header that says who asks. `fetch` takes it off where an answer leads to another host. */
export function authorization({ token }: Asked): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` }
}

function linkOf(response: Response): Record<string, string> {
  const link = response.headers.get('link')
  return link === null ? {} : { link }
}

async function boundedText(response: Response, asked: Asked): Promise<string> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += part.byteLength
    if (bytes > maxAnswer) throw strange(asked, `has more than ${maxAnswer} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

/** An answer that is a refusal. */
class Refusal extends LowrankError {
  /** Whether the same question may be answered in a moment. */
  readonly passing: boolean

  constructor(message: string, code: ErrorCode, hint: string | undefined) {
    super(code, message, { hint })
    this.passing = code === 'io'
  }
}

/** What a refusal means, and what to do. */
export async function refusal(response: Response, asked: Asked): Promise<Refusal> {
  const { endpoint, token, kind, id, revision } = asked
  const { status } = response
  await response.body?.cancel()
  const host = hostOf(response.url || endpoint)
  // What another host refuses says nothing of the account: the address that it was found by may have become too old.
  const isHub = host === hostOf(endpoint)
  const passing = !isHub || status === 408 || status === 429 || status >= 500
  const code = response.headers.get('x-error-code')
  const page = addressOf(asked)
  const make = `Set HF_TOKEN to a token of an account that may read it (${endpoint}/settings/tokens).`
  const refuse = (message: string, hint?: string): Refusal =>
    new Refusal(`${message} (${host} answers ${status})`, passing ? 'io' : codeOf(asked), hint)
  if (!isHub) return refuse(`cannot download ${id}`, 'Try again later.')
  if (code === 'GatedRepo' || (status === 403 && code === null)) {
    const accept = `Accept its licence at ${page}`
    return refuse(
      `${id} is gated: it is given to accounts that have accepted its licence`,
      token === undefined
        ? `${accept}, then set HF_TOKEN to a token of your account (${endpoint}/settings/tokens).`
        : `${accept} with the account that HF_TOKEN belongs to; a fine-grained token also needs the right to read gated ${kind}s.`,
    )
  }
  if (code === 'RevisionNotFound') {
    return refuse(`${id} has no revision "${revision}"`, `Its branches and tags are at ${page}/tree/main.`)
  }
  if (status === 401 && token !== undefined && code !== 'RepoNotFound') {
    return refuse(
      `the token in HF_TOKEN is not accepted, asked for ${id}`,
      `Make a new one: ${endpoint}/settings/tokens.`,
    )
  }
  if (status === 401 || (status === 404 && code !== 'EntryNotFound')) {
    const here = kind === 'model' ? `there is no folder ${id} here, and` : `${id}:`
    const why = `${here} the hub has no such ${kind}${token === undefined ? ' that is public' : ' for this token'}`
    return refuse(why, `Look at the spelling, or at ${page}.${token === undefined ? ` If it is private: ${make}` : ''}`)
  }
  const said = response.headers.get('x-error-message')?.slice(0, 300)
  const hint =
    status === 429
      ? 'Wait a few minutes; with HF_TOKEN more is allowed.'
      : status >= 500
        ? 'Try again later.'
        : undefined
  return refuse(`cannot read ${id}${said === undefined ? '' : `: ${said}`}`, hint)
}

/** The hub could not be asked at all. */
function unreachable(error: unknown, { endpoint, id }: Asked): LowrankError {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const why = messageOf(cause) || (cause as NodeJS.ErrnoException).code
  return new LowrankError('io', `cannot download ${id} from ${hostOf(endpoint)}: ${why}`, {
    cause: error,
    hint: 'Look at the network, and at HF_ENDPOINT if it is set. Models in the cache are used with HF_HUB_OFFLINE=1.',
  })
}

export function hostOf(url: string): string {
  return new URL(url).host
}
