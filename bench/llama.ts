/* llama.cpp by way of node-llama-cpp, which is installed by hand: see `generate.ts`. */
import { importPeer } from './peers.ts'

type Measure = () => Promise<number>

export interface Peer {
  readonly measures: Readonly<Record<string, Measure>>
  readonly close: () => Promise<void>
}

/** What is used of node-llama-cpp. */
interface LlamaModule {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<LlamaModel>
  }>
}

interface LlamaModel {
  createContext(options: object): Promise<{ getSequence(): LlamaSequence; dispose(): Promise<void> }>
  dispose(): Promise<void>
}

interface LlamaSequence {
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>
  evaluate(tokens: readonly number[], options: object): AsyncGenerator<number>
  eraseContextTokenRanges(ranges: readonly { readonly start: number; readonly end: number }[]): Promise<void>
  clearHistory(): Promise<void>
  readonly nextTokenIndex: number
}

/** The same measures as of our own, by name. */
export async function openLlama(
  path: string,
  { short, long, tokens }: { readonly short: number; readonly long: number; readonly tokens: number },
): Promise<Peer | undefined> {
  const module = await importPeer<LlamaModule>('node-llama-cpp')
  if (module === undefined) return undefined
  const llama = await module.getLlama({ gpu: false, build: 'never', maxThreads: 2, logLevel: 'error' })
  const model = await llama.loadModel({ modelPath: path })
  const ids = (count: number): number[] => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % 40_000)
  const opened = async (context: number, rows: number): Promise<LlamaSequence[]> => {
    const made = await model.createContext({
      contextSize: context + tokens + 8,
      sequences: rows,
      threads: 2,
      batchSize: 256,
      flashAttention: false,
    })
    return Array.from({ length: rows }, () => made.getSequence())
  }
  const filled = async (context: number, rows: number): Promise<LlamaSequence[]> => {
    const sequences = await opened(context, rows)
    for (const one of sequences) await one.evaluateWithoutGeneratingNewTokens(ids(context))
    return sequences
  }
  /** Seconds a step of all sequences, by the time of them all. */
  const decode = (sequences: readonly LlamaSequence[], context: number): Measure => {
    return async () => {
      const begun = performance.now()
      await Promise.all(
        sequences.map(async (one) => {
          const making = one.evaluate([100], { temperature: 0, yieldEogToken: true })
          for (let made = 0; made < tokens; made++) await making.next()
          await making.return(undefined)
        }),
      )
      const seconds = (performance.now() - begun) / 1000 / tokens
      for (const one of sequences) await one.eraseContextTokenRanges([{ start: context, end: one.nextTokenIndex }])
      return seconds
    }
  }
  const [alone, four, sixteen, far] = [
    await filled(short, 1),
    await filled(short, 4),
    await filled(short, 16),
    await filled(long, 1),
  ]
  const [fresh] = await opened(short, 1)
  return {
    measures: {
      'prefill 256': async () => {
        await fresh!.clearHistory()
        const begun = performance.now()
        await fresh!.evaluateWithoutGeneratingNewTokens(ids(short))
        return (performance.now() - begun) / 1000
      },
      'token, context 256': decode(alone, short),
      'token, batch 4': decode(four, short),
      'token, batch 16': decode(sixteen, short),
      [`token, context ${long}`]: decode(far, long),
    },
    close: () => model.dispose(),
  }
}
