import { z } from 'zod'
import { count, option, path } from '../fields.ts'

export const modelAndData = {
  model: option(path, {
    group: 'Model and data',
    description: 'Folder of the base model: config.json, *.safetensors, tokenizer.json',
    placeholder: 'DIR',
  }),
  adapter: option(path.optional(), {
    group: 'Model and data',
    description: 'Folder of a PEFT adapter on top of the base model; training continues from it',
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
  adapter: modelAndData.adapter.meta({ description: 'Folder of a PEFT adapter on top of the base model' }),
}
