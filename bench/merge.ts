/*
 * Memory and time of merging an adapter of all linear layers into a model with the sizes of Llama 3 70B: of its layers only a few, since
 * they come one after another, but the whole embedding and head, which are its largest weights.
 *
 *     npm run bench:merge [-- --layers 2] [--hidden 8192] [--ffn 28672] [--vocabulary 128256] [--method qlora]
 */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { MergeResult } from '../src/commands/merge.ts'
import { writeRandomAdapter } from '../scripts/random-adapter.ts'
import { writeRandomModel } from '../scripts/random-nf4.ts'
import { duration, formatSize } from '../src/util/format.ts'

const args = process.argv.slice(2)
const option = (name: string, otherwise: string): string =>
  args.includes(`--${name}`) ? (args[args.indexOf(`--${name}`) + 1] ?? otherwise) : otherwise
const number = (name: string, otherwise: number): number => Number(option(name, String(otherwise)))

const root = fileURLToPath(new URL('../../', import.meta.url))
const shape = {
  layers: number('layers', 2),
  hidden: number('hidden', 8192),
  ffn: number('ffn', 28672),
  heads: 64,
  kvHeads: 8,
  vocabulary: number('vocabulary', 128256),
}
const work = await mkdtemp(join(tmpdir(), 'lowrank-merge-'))
try {
  const [model, adapter] = [join(work, 'model'), join(work, 'adapter')]
  await writeRandomModel(model, shape, join(root, 'examples/quickstart/model'), { storage: 'BF16' })
  await writeRandomAdapter(adapter, model, 16)
  for (const method of option('method', 'lora,qlora').split(',')) {
    const output = join(work, method)
    const options = ['--model', model, '--adapter', adapter, '--output', output, '--method', method, '--json']
    const command = [join(root, 'dist/cli.js'), 'merge', ...options]
    const { stdout } = await promisify(execFile)(process.execPath, command, { maxBuffer: 1 << 26 })
    const { bytes, seconds, peakMemory } = JSON.parse(stdout) as MergeResult
    const rate = formatSize(bytes / seconds)
    console.log(
      `${method}: ${formatSize(bytes)} written in ${duration(seconds)} (${rate}/s), peak memory ${formatSize(peakMemory)}`,
    )
    await rm(output, { recursive: true })
  }
} finally {
  await rm(work, { recursive: true })
}
