import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/**
 * A package of npm to compare with, which is not among the dependencies: from the current folder, or from the folder $LOWRANK_PEERS in which
 * it was installed by hand. Undefined, with a line on standard error, where there is none.
 */
export async function importPeer<T>(name: string): Promise<T | undefined> {
  const folders = [process.cwd(), process.env['LOWRANK_PEERS']].filter((folder) => folder !== undefined)
  for (const folder of folders) {
    let found: string
    try {
      found = createRequire(join(folder, 'package.json')).resolve(name)
    } catch {
      continue
    }
    return (await import(pathToFileURL(found).href)) as T
  }
  console.error(`skipped what needs ${name}: npm install it in a folder, and set LOWRANK_PEERS to that`)
  return undefined
}
