import { option, path } from '../fields.ts'

export const cache = {
  cacheDir: option(path.optional(), {
    group: 'Cache',
    description: 'Folder of the cache',
    placeholder: 'DIR',
    unset: 'HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub',
  }),
}
