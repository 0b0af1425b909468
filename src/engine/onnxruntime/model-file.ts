import '../../util/telemetry.ts'
import * as ort from 'onnxruntime-node'
import { internalError, LowrankError, messageOf } from '../../util/errors.ts'
import { isOutOfMemory, memoryError, smallerHint } from '../../util/limits.ts'
import { dtypes, type Feeds, inNative, ortTypes, type Results } from './runtime.ts'

/** An ONNX file, loaded as any other program loads it: optimized, its weights from the files beside it. */
export class ModelFile {
  readonly #session: ort.InferenceSession

  private constructor(session: ort.InferenceSession) {
    this.#session = session
  }

  /** @throws LowrankError `internal`: the runtime does not load it. */
  static async open(path: string, { threads }: { readonly threads: number }): Promise<ModelFile> {
    try {
      const options: ort.InferenceSession.SessionOptions = {
        executionProviders: ['cpu'],
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
        extra: { session: { force_spinning_stop: '1' } },
      }
      return new ModelFile(await inNative(() => ort.InferenceSession.create(path, options)))
    } catch (cause) {
      if (isOutOfMemory(cause)) throw memoryError(`while ${path} was loaded`, cause, smallerHint)
      throw new LowrankError('internal', `internal: ONNX Runtime does not load ${path}: ${messageOf(cause)}`, { cause })
    }
  }

  get inputs(): readonly string[] {
    return this.#session.inputNames
  }

  get outputs(): readonly string[] {
    return this.#session.outputNames
  }

  async run(feeds: Feeds): Promise<Results> {
    const tensors = Object.entries(feeds).map(([name, { dtype, data, shape }]) => {
      return [name, new ort.Tensor(ortTypes[dtype], data as Float32Array, shape)] as const
    })
    const outputs = await inNative(() => this.#session.run(Object.fromEntries(tensors)))
    return Object.fromEntries(
      Object.entries(outputs).map(([name, { type, dims, data }]) => {
        const dtype = dtypes[type]
        if (dtype === undefined) throw internalError(`a result "${name}" of type ${type}`)
        return [name, { dtype, shape: dims, data: data as Results[string]['data'] }]
      }),
    )
  }

  async close(): Promise<void> {
    await inNative(() => this.#session.release())
  }
}
