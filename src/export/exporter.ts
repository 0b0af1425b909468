import type { Quantization } from '../config/index.ts'
import type { WeightSource } from '../model/sources/source.ts'
import type { ExportDtype } from './forms.ts'

/** What is exported, and how. Paths are of folders and files on this machine. */
export interface ExportInput {
  /** Folder or GGUF file of the base model. */
  readonly model: string | undefined
  /** Folder of the adapter. */
  readonly adapter: string | undefined
  /** How the base was held while the adapter was trained. */
  readonly quantization: Quantization | undefined
  /** What the model is called in what is written. */
  readonly name: string
  /** Name of the base on the hub or its path, as the adapter gives it, for who loads the adapter. */
  readonly base: { readonly name: string; readonly revision?: string | undefined }
  readonly dtype: ExportDtype
  /** The weights of the base, with the adapter added in f32 where there is one. Whoever opens them closes them: see `using`. */
  readonly weights: () => Promise<WeightSource>
  readonly threads: number | undefined
  readonly cancelled: () => boolean
  /** Receives what is done next, in words. */
  readonly report: (message: string) => void
}

/** What an exporter has written. */
export interface Written {
  /** Names of the files, and their bytes. */
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
  /** What whoever uses it has to know. */
  readonly notes: readonly string[]
}

/** What was found when an export was read again; anything wrong is an error. */
export interface Checked {
  /** Tensors that hold what they were to hold. */
  readonly tensors: number
  /** Texts whose tokens are those of the model's own tokenizer. */
  readonly texts?: number
  /** What the export computes beside model and adapter. */
  readonly logits?: LogitsComparison
}

/** Next-token logits of the same texts, computed twice. */
export interface LogitsComparison {
  readonly texts: number
  /** Between two logits of a token. */
  readonly largestDifference: number
  /** Kullback-Leibler divergence in nats, mean over the texts. */
  readonly divergence: number
  /** Texts with the same most likely token. */
  readonly sameFirst: number
}

/** A form in which a result is handed to another program. */
export interface Exporter {
  readonly makes: 'file' | 'folder'
  /** What has to be named. */
  readonly needs: readonly ('model' | 'adapter')[]
  /** How numbers may be stored, the default first. */
  readonly dtypes: readonly [ExportDtype, ...ExportDtype[]]
  /** What the name of its file ends with. */
  readonly extension?: string
  /**
   * Writes to `path`, where nothing is yet: a file, or into an empty folder.
   *
   * @throws LowrankError `adapter`, `model`: what the form cannot hold, and the way out.
   */
  write(input: ExportInput, path: string): Promise<Written>
  /**
   * Reads what was written, and compares it with what was to be written.
   *
   * @throws LowrankError `internal`: it is something else.
   */
  check(input: ExportInput, path: string): Promise<Checked>
}

/** Opens the weights of a base, and closes them when `use` has ended. */
export async function using<T>(source: WeightSource, use: (source: WeightSource) => Promise<T>): Promise<T> {
  try {
    return await use(source)
  } finally {
    await source.close()
  }
}
