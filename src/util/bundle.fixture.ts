import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

/** Writes a module of the sources with all it imports into a folder, for tests that run it in a process of its own; the path of its file. */
export async function writeBundle(module: URL, folder: string): Promise<string> {
  const dir = join(folder, 'bundle')
  const bundle = await rolldown({ input: { module: fileURLToPath(module) }, platform: 'node' })
  await bundle.write({ dir, format: 'esm', entryFileNames: '[name].mjs', chunkFileNames: '[name]-[hash].mjs' })
  await bundle.close()
  return join(dir, 'module.mjs')
}
