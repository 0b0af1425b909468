import { z } from 'zod'
import { option } from '../config/fields.ts'
import { dataFiles, reading } from '../config/groups/data.ts'
import { generation, held } from '../config/groups/generation.ts'
import { machine } from '../config/groups/machine.ts'
import { openedModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { heldRules, optionSet } from '../config/index.ts'
import type { GenerationEvent, GenerationResult } from '../generate/events.ts'
import type { CallOptions } from './compute.ts'
import { defineStream } from './define.ts'

export type {
  CompletionEvent,
  GenerationEvent,
  GenerationResult,
  TokenEvent,
  TokenLogprob,
} from '../generate/events.ts'

const group = 'Model and data'

const options = optionSet(
  z.strictObject({
    ...openedModel,
    prompt: option(z.string().max(10_000_000).optional(), {
      group,
      description: 'The text to continue',
      placeholder: 'TEXT',
    }),
    prompts: dataFiles.valid.meta({ description: 'Files of {"prompt"} or {"messages"} records to continue instead' }),
    chat: reading.chat.meta({ group, description: 'A prompt is what a user says, and is answered' }),
    chatTemplate: reading.chatTemplate.meta({ group }),
    templateDate: reading.templateDate.meta({ group }),
    ...generation,
    ...held,
    ...heldBase,
    threads: machine.threads,
  }),
  {
    check: (values, nameOf) => {
      const problems = heldRules.check(values, nameOf as Parameters<typeof heldRules.check>[1])
      const { prompt, prompts } = values
      if ((prompt === undefined) === (prompts === undefined)) {
        problems.push(`${nameOf('prompt')}: either it or ${nameOf('prompts')} is needed`)
      }
      return problems
    },
    complete: (values) => heldRules.complete?.(values),
  },
)

/** Options of `generate` as a user passes them. */
export type GenerateInput = z.input<typeof options.schema>

/**
 * Continues a prompt, or those of a file: an event for each piece of text as it comes, and one for each completion.
 *
 * @throws LowrankError `config`, `model`, `adapter`, `data`: the input was refused; `cancelled`.
 */
export const generate: (input: GenerateInput, call?: CallOptions) => AsyncGenerator<GenerationEvent, GenerationResult> =
  defineStream({
    name: 'generate',
    summary: 'Continue a prompt, or those of a file, with a model and an adapter',
    usage: '--model MODEL (--prompt TEXT | --prompts FILES) [flags]',
    notes:
      'Without sampling flags the likeliest tokens are taken, unless generation_config.json of the model says otherwise. ' +
      'With --json a line for each prompt: "prompt", "text", "finishReason" and "tokens".',
    options,
    load: async () => (await import('../tasks/generate.ts')).runGeneration,
    draw: async (events, terminal, { prompt }) => {
      const { drawGeneration } = await import('../terminal/generation.ts')
      await drawGeneration(events, terminal, { single: prompt !== undefined })
    },
  })
