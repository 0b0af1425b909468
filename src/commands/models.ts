import { z } from 'zod'
import { cache } from '../config/groups/cache.ts'
import { optionSet } from '../config/index.ts'
import type { CachedModel } from '../hub/cached.ts'
import { table } from '../terminal/format.ts'
import { formatSize } from '../util/format.ts'
import { defineCommand } from './define.ts'

export type { CachedModel }

const options = optionSet(z.strictObject(cache))

/** The models, adapters and datasets in the cache of the Hugging Face hub, whichever program has put them there; what was used last comes first. */
export const listModels: (options?: { readonly cacheDir?: string | undefined }) => Promise<readonly CachedModel[]> =
  defineCommand({
    name: 'models',
    summary: 'List the models and datasets of the Hugging Face hub that are in the cache, with their sizes',
    usage: '[flags]',
    notes:
      'A model that is named ORG/NAME is downloaded into the cache, which it shares with the programs of Python. ' +
      'A dataset is listed as hf:ORG/NAME, by which it is named as data. "lowrank models rm" removes one.',
    options,
    run: async ({ cacheDir }) => (await import('../hub/cached.ts')).listCached(cacheDir),
    aside: (models, { json }) => (models.length === 0 && !json ? ['no models or datasets in the cache'] : []),
    text: (models) => (models.length === 0 ? [] : modelLines(models)),
  })

function modelLines(models: readonly CachedModel[]): string[] {
  const rows = models.map(({ id, revision, refs, size, lastUsed }) => [
    id,
    revision?.slice(0, 12) ?? 'unfinished',
    refs.join(', '),
    formatSize(size),
    lastUsed.slice(0, 16).replace('T', ' '),
  ])
  return table(['model or dataset', 'revision', 'branches', 'size', 'last used (UTC)'], rows)
}
