import { appendFile } from 'node:fs/promises'
import { z } from 'zod'
import { option } from '../config/fields.ts'
import { reading } from '../config/groups/data.ts'
import { generation, held } from '../config/groups/generation.ts'
import { machine } from '../config/groups/machine.ts'
import { openedModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { heldRules, optionSet } from '../config/index.ts'
import { adapterName, Chat } from '../generate/chat.ts'
import { LowrankError, messageOf } from '../util/errors.ts'
import type { StatusOptions } from './compute.ts'
import { defineInteractive } from './define.ts'
import { type GenerateOptions, loadModel, type Model } from './model.ts'

export { Chat }

const group = 'Model and data'

const options = optionSet(
  z.strictObject({
    ...openedModel,
    system: option(z.string().min(1).max(1_000_000).optional(), {
      group,
      description: 'What the model is told before anything is said',
      placeholder: 'TEXT',
    }),
    chatTemplate: reading.chatTemplate.meta({ group }),
    templateDate: reading.templateDate.meta({ group }),
    ...generation,
    maxNewTokens: generation.maxNewTokens.default(1024),
    ...held,
    ...heldBase,
    threads: machine.threads,
  }),
  heldRules,
)

/** Options of `openChat` as a user passes them. */
export type ChatInput = z.input<typeof options.schema>

/** A model, and a conversation with it. Call `model.close()` when done. */
export interface ChatSession {
  readonly model: Model
  readonly chat: Chat<GenerateOptions>
  /** Names of the adapters that are loaded, that of the options among them. */
  readonly adapters: string[]
}

/**
 * Loads a model to talk with.
 *
 * @throws LowrankError `config`: it has no chat template; and what `loadModel` throws.
 */
export const openChat: (input: ChatInput, call?: StatusOptions) => Promise<ChatSession> = defineInteractive({
  name: 'chat',
  summary: 'Talk with a model and its adapters in the terminal',
  usage: '--model MODEL [--adapter DIR] [flags]',
  notes: 'Each line is what the user says; /help lists the commands. What is piped in is answered line by line.',
  options,
  open: async ({ system, maxNewTokens, ...config }, call) => {
    const { model: name, adapter, precision, chatTemplate, templateDate, threads, method: _, ...rest } = config
    const { loadIn4bit, loadIn8bit, bnb4bitQuantType, bnb4bitUseDoubleQuant, bnb4bitBlockSize, ...sampling } = rest
    const base = { loadIn4bit, loadIn8bit, bnb4bitQuantType, bnb4bitUseDoubleQuant, bnb4bitBlockSize }
    const model = await loadModel(
      { model: name, precision, chatTemplate, templateDate, threads, ...base, adapter },
      call,
    )
    try {
      if (model.info.template === undefined) throw noTemplate(name)
      const own = adapter === undefined ? null : adapterName(adapter)
      const chat = new Chat<GenerateOptions>(model, { ...sampling, maxNewTokens }, { system, adapter: own })
      return { model, chat, adapters: own === null ? [] : [own] }
    } catch (error) {
      await model.close()
      throw error
    }
  },
  draw: async ({ model, chat, adapters }, terminal) => {
    const { talk } = await import('../terminal/chat.ts')
    const { held: how, sampling, template } = model.info
    terminal.stderr.write(`weights: ${how}; ${sampling}; template: ${template}; /help lists the commands\n`)
    try {
      await talk(chat, actionsOf(model, chat, adapters), terminal)
    } finally {
      await model.close()
    }
  },
})

function actionsOf(model: Model, chat: Chat<GenerateOptions>, adapters: string[]) {
  return {
    adapters: () => adapters,
    load: async (folder: string): Promise<string> => {
      const name = adapterName(folder)
      await model.loadAdapter(name, folder)
      if (!adapters.includes(name)) adapters.push(name)
      return name
    },
    save: async (path: string): Promise<void> => {
      await appendFile(path, `${JSON.stringify({ messages: chat.messages })}\n`).catch((cause: unknown) => {
        throw new LowrankError('io', `cannot write ${path}: ${messageOf(cause)}`, { cause })
      })
    },
  }
}

function noTemplate(model: string): LowrankError {
  return new LowrankError('config', `${model} has no chat template, so it is not known how to talk with it`, {
    hint: 'Name one (--chat-template chatml, or a file), or continue a text as it is with lowrank generate.',
  })
}
