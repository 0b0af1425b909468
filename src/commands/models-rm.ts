import { z } from 'zod'
import { cache } from '../config/groups/cache.ts'
import { optionSet } from '../config/index.ts'
import type { RemovedModel } from '../hub/cached.ts'
import { formatSize } from '../util/format.ts'
import { word } from './argument.ts'
import { defineCommand } from './define.ts'

export type { RemovedModel }

const options = optionSet(z.strictObject(cache))

/**
 * Removes a model from the cache of the Hugging Face hub, `org/name`, or a dataset, `hf:org/name`, or one revision of it, `org/name@revision`.
 *
 * @throws LowrankError `model`: the cache has no such model or dataset; `config`: it is being downloaded.
 */
export const removeModel: (
  name: string,
  options?: { readonly cacheDir?: string | undefined },
) => Promise<RemovedModel> = defineCommand({
  name: 'models rm',
  summary: 'Remove a model or a dataset, or one revision of it, from the cache',
  usage: 'MODEL [flags]',
  notes:
    'MODEL is ORG/NAME, or ORG/NAME@REVISION with a branch, a tag or the beginning of a commit; of a dataset with hf: in front. ' +
    'Files that another revision shares stay.',
  argument: word('name', 'MODEL'),
  options,
  run: async ({ name, cacheDir }) => (await import('../hub/cached.ts')).removeCached(name, cacheDir),
  text: ({ id, revisions, bytes: freed }) => [
    `removed ${[id, revisions.map((one) => one.slice(0, 12)).join(', ')].filter((part) => part !== '').join('  ')}  (${formatSize(freed)})`,
  ],
})
