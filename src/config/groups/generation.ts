import { z } from 'zod'
import { count, COUNT_MAX, option, positive } from '../fields.ts'

const group = 'Generation'

/** How a model is held that generates. */
export const held = {
  precision: option(z.enum(['exact', 'fast', 'fast-4bit']).default('exact'), {
    group,
    description:
      'exact: products in f32, as in training; fast, fast-4bit: in integers of 8 or 4 bits, to which the weights are rounded',
  }),
}

export type Precision = z.output<typeof held.precision>

const fromModel = "the model's generation_config.json, else"

/** How texts are continued, named as in transformers' `GenerationConfig`; the last four as in OpenAI's API. */
export const generation = {
  maxNewTokens: option(count.default(128), {
    group,
    description: 'Tokens to add at most; generation ends earlier with an end-of-sequence token',
  }),
  doSample: option(z.boolean().optional(), {
    group,
    description: 'Draw tokens by their probability, instead of taking the likeliest',
    unset: `if one of the next four is given; ${fromModel} not`,
  }),
  temperature: option(z.number().min(0).max(100).optional(), {
    group,
    description: 'By what logits are divided; 0: the likeliest token',
    unset: `${fromModel} 1`,
  }),
  topK: option(z.int().min(0).max(COUNT_MAX).optional(), {
    group,
    description: 'Draw from the so many likeliest tokens; 0: from all',
    unset: `${fromModel} 50`,
  }),
  topP: option(z.number().gt(0).max(1).optional(), {
    group,
    description: 'Draw from the likeliest tokens that have this share of probability together',
    unset: `${fromModel} 1`,
  }),
  minP: option(z.number().min(0).lt(1).optional(), {
    group,
    description: 'Draw from tokens that have at least this share of the probability of the likeliest',
    unset: `${fromModel} 0`,
  }),
  repetitionPenalty: option(positive.optional(), {
    group,
    description: 'Make tokens of prompt and answer less likely (above 1), or more',
    unset: `${fromModel} 1`,
  }),
  presencePenalty: option(z.number().min(-2).max(2).default(0), {
    group,
    description: 'Taken off the logits of tokens that the answer has',
  }),
  frequencyPenalty: option(z.number().min(-2).max(2).default(0), {
    group,
    description: 'Taken off the logits of tokens of the answer, each time they come',
  }),
  logitBias: option(z.record(z.string().regex(/^\d{1,10}$/), z.number().min(-100).max(100)).optional(), {
    group,
    description: 'Added to the logits of tokens, by their ids: 15=-100,42=5',
    placeholder: 'ID=NUMBER,...',
    accepts: 'ids of tokens, each with a number from -100 to 100',
  }),
  stop: option(
    z
      .union([z.string().min(1).max(1000), z.array(z.string().min(1).max(1000)).max(16)])
      .transform((value) => (typeof value === 'string' ? [value] : value))
      .optional(),
    {
      group,
      description: 'Text that ends an answer, and is not part of it',
      placeholder: 'TEXT',
      accepts: 'a text, or (in a file or the API) a list of up to 16',
    },
  ),
  seed: option(z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional(), {
    group,
    description: 'Decides what is drawn',
    unset: 'another one each time',
  }),
  logprobs: option(z.int().min(0).max(20).optional(), {
    group,
    description: 'Tell the logarithm of the probability of each token, and of so many others in its place',
    unset: 'not told',
  }),
}

export const generationSchema = z.object(generation)

/** How texts are to be continued. */
export type GenerationSettings = z.output<typeof generationSchema>
