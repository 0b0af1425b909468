import type { Prompt } from '../text/prompts.ts'
import type { StatusEvent } from '../util/task.ts'
import type { FinishReason } from './generator.ts'

/** The text of a token, as soon as it is certain. */
export interface TokenEvent {
  readonly type: 'token'
  /** Which of the prompts, from 0. */
  readonly index: number
  readonly text: string
}

/** A token, and the logarithm of its probability. */
export interface TokenLogprob {
  readonly id: number
  readonly logprob: number
}

/** A prompt and what came of it. In the order of the prompts. */
export interface CompletionEvent {
  readonly type: 'completion'
  readonly index: number
  readonly prompt: Prompt
  readonly text: string
  /** Whether it ended with an end token, with a text of `stop`, or at its full length. */
  readonly finishReason: FinishReason
  /** How many tokens were generated, the end token included. */
  readonly tokens: number
  /** Of each token, with the likeliest in its place. */
  readonly logprobs?: readonly (TokenLogprob & { readonly top: readonly TokenLogprob[] })[]
}

/** What a text means to the model, [hidden]. */
export interface EmbeddingEvent {
  readonly type: 'embedding'
  readonly index: number
  readonly vector: Float32Array
}

export type GenerationEvent = StatusEvent | TokenEvent | CompletionEvent

/** What a generation took. */
export interface GenerationResult {
  readonly completions: number
  readonly tokens: number
  /** From the first prompt to the last token. */
  readonly seconds: number
  /** How the weights were held, and how tokens were taken, in words. */
  readonly held: string
  readonly sampling: string
}

/** What there is to know of a model that was loaded. */
export interface ModelInfo {
  /** How its weights are held, in words. */
  readonly held: string
  /** Most tokens of a prompt and its answer together. */
  readonly contextLength: number
  /** Where the template of conversations is from; undefined: it has none. */
  readonly template: string | undefined
  /** How tokens are taken where nothing is asked for, in words. */
  readonly sampling: string
}
