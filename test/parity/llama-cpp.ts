import { importPeer } from '../../bench/peers.ts'

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

/** The package; undefined, with a line, where it is not there. */
export function findLlamaCpp(): Promise<NodeLlamaCpp | undefined> {
  return importPeer('node-llama-cpp')
}

export async function openLlamaCpp(
  { getLlama }: NodeLlamaCpp,
  modelPath: string,
  { lora }: { readonly lora?: string } = {},
): Promise<LlamaCpp> {
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: 1 })
  const model = await llama.loadModel({ modelPath })
  const adapters = lora === undefined ? {} : { lora: { adapters: [{ filePath: lora, scale: 1 }] } }
  const context = await model.createContext({ contextSize: 512, threads: 1, ...adapters })
  const sequence = context.getSequence()
  return {
    version: `llama.cpp ${llama.llamaCppRelease?.release ?? '?'}`,
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
