import { readEvalConfig } from '../config/index.ts'
import type { Invocation } from './io.ts'
import { dataLine, evalText } from './render.ts'

/** `lowrank eval`: the loss of a model, with or without an adapter, on a file of examples. */
export async function evaluation({ sources, json, io, signal, loadApi }: Invocation): Promise<void> {
  const config = readEvalConfig(sources)
  const { evaluate } = await loadApi()
  io.stderr.write(`evaluating on ${config.data}\n`)
  const onStatus = (message: string): void => void io.stderr.write(`${message}\n`)
  const result = await evaluate(config, { signal, onStatus })
  io.stderr.write(`${dataLine('data', result.data)}\n`)
  const line = json ? JSON.stringify(result) : evalText(result)
  io.stdout.write(`${line}\n`)
}
