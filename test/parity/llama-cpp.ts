import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** What is used of node-llama-cpp, which is llama.cpp for Node.js. */
interface NodeLlamaCpp {
  readonly getLlama: (options: Readonly<Record<string, unknown>>) => Promise<Llama>
}

interface Llama {
  loadModel(options: { readonly modelPath: string }): Promise<LlamaModel>
  readonly llamaCppRelease?: { readonly release: string }
  dispose(): Promise<void>
}

interface LlamaModel {
  tokenize(text: string, specialTokens?: boolean): number[]
  createContext(options: Readonly<Record<string, unknown>>): Promise<LlamaContext>
  dispose(): Promise<void>
}

interface LlamaContext {
  getSequence(): {
    evaluate(tokens: readonly number[], options: Readonly<Record<string, unknown>>): AsyncIterable<number>
    clearHistory(): Promise<void>
  }
  dispose(): Promise<void>
}

/** llama.cpp with a model in memory. Call `close()` when done. */
export interface LlamaCpp {
  readonly version: string
  tokenize(text: string): number[]
  /** The most likely tokens after others; those that end a text end it. */
  greedy(ids: readonly number[], count: number): Promise<number[]>
  close(): Promise<void>
}

const where = process.env['LOWRANK_NODE_LLAMA_CPP'] ?? join(import.meta.dirname, '../../..')

/** The package, of the folder in $LOWRANK_NODE_LLAMA_CPP or of this one; undefined, with a line, where it is not there. */
export async function findLlamaCpp(): Promise<NodeLlamaCpp | undefined> {
  const folder = join(where, 'node_modules/node-llama-cpp')
  if (!existsSync(folder)) {
    console.error(
      `skipped what needs llama.cpp: ${where} has no node_modules/node-llama-cpp (npm install --no-save node-llama-cpp, or set LOWRANK_NODE_LLAMA_CPP)`,
    )
    return undefined
  }
  return (await import(pathToFileURL(join(folder, 'dist/index.js')).href)) as NodeLlamaCpp
}

export async function openLlamaCpp(
  { getLlama }: NodeLlamaCpp,
  modelPath: string,
  { lora }: { readonly lora?: string } = {},
): Promise<LlamaCpp> {
  const { version } = JSON.parse(await readFile(join(where, 'node_modules/node-llama-cpp/package.json'), 'utf8')) as {
    version: string
  }
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: 1 })
  const model = await llama.loadModel({ modelPath })
  const adapters = lora === undefined ? {} : { lora: { adapters: [{ filePath: lora, scale: 1 }] } }
  const context = await model.createContext({ contextSize: 512, threads: 1, ...adapters })
  const sequence = context.getSequence()
  return {
    version: `node-llama-cpp ${version} (llama.cpp ${llama.llamaCppRelease?.release ?? '?'})`,
    tokenize: (text) => model.tokenize(text, true),
    greedy: async (ids, count) => {
      const made: number[] = []
      for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        made.push(token)
        if (made.length >= count) break
      }
      await sequence.clearHistory()
      return made
    },
    close: async () => {
      await context.dispose()
      await model.dispose()
      await llama.dispose()
    },
  }
}
