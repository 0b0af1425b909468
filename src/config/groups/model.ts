import { z } from 'zod'
import { count, option, path } from '../fields.ts'

export const modelAndData = {
  model: option(path, {
    group: 'Model and data',
    description: 'Base model: a folder, or ORG/NAME or ORG/NAME@REVISION of the Hugging Face hub',
    resume: 'free',
    placeholder: 'MODEL',
  }),
  adapter: option(path.optional(), {
    group: 'Model and data',
    description: 'PEFT adapter on top of the base model, a folder or ORG/NAME of the hub; training continues from it',
    resume: 'free',
    placeholder: 'DIR',
  }),
  maxLength: option(count.min(2).default(1024), {
    group: 'Model and data',
    description: 'Longest example in tokens; longer ones lose their end',
  }),
  skipBadLines: option(z.boolean().default(false), {
    group: 'Model and data',
    description: 'Skip malformed lines of a data file, and count them, instead of stopping',
  }),
}

/** A model to be used as it is. */
export const openedModel = {
  model: modelAndData.model,
  adapter: modelAndData.adapter.meta({
    description: 'PEFT adapter on top of the base model, a folder or ORG/NAME of the hub',
  }),
}
