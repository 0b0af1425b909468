import { option, path } from '../fields.ts'

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
}

/** A model to be used as it is. */
export const openedModel = {
  model: modelAndData.model,
  adapter: modelAndData.adapter.meta({
    description: 'PEFT adapter on top of the base model, a folder or ORG/NAME of the hub',
  }),
}

/** The same, where an adapter says what it was trained on. */
export const foundModel = {
  ...openedModel,
  model: option(path.optional(), {
    group: 'Model and data',
    description: 'Base model: a folder, or ORG/NAME or ORG/NAME@REVISION of the Hugging Face hub',
    placeholder: 'MODEL',
    unset: 'as run.json beside the adapter says, else its adapter_config.json',
  }),
}
