import type { OpAttributes, OpName, TensorType } from './value.ts'

/** Attribute values of an ONNX node: a float must be told apart from an integer. */
export type OnnxAttribute = number | string | readonly number[] | { readonly float: number }

/** What an op writes its ONNX nodes with. `inputs` and `outputs` are the names of its own tensors. */
export interface Emitter {
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly inputTypes: readonly TensorType[]
  readonly outputTypes: readonly TensorType[]
  /** Whether the program reads an output of the op. */
  reads(output: number): boolean
  /** How an input comes about, for an op that takes up the one before it; undefined for an input of the program. */
  maker(input: number): Maker | undefined
  node(type: string, inputs: readonly string[], outputs: readonly string[], attributes?: Attributes): void
  /** A node of the `com.microsoft` domain. */
  contrib(type: string, inputs: readonly string[], outputs: readonly string[], attributes?: Attributes): void
  /** The first output is a tensor that is there already. */
  passOn(name: string): void
  /** Names of constants and of intermediate tensors. */
  ints(values: readonly number[]): string
  float(value: number): string
  temporary(): string
  /** Names of tensors that `make` writes nodes for, once for all ops of the program that ask for `key`. */
  once(key: string, make: () => readonly string[]): readonly string[]
}

/** An op with the names of its operands. */
export type Maker = {
  readonly [K in OpName]: { readonly op: K; readonly attributes: OpAttributes[K]; readonly inputs: readonly string[] }
}[OpName]

type Attributes = Readonly<Record<string, OnnxAttribute>>
