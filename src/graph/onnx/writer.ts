import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { internalError } from '../../util/errors.ts'
import type { Emitter, Maker, OnnxAttribute } from '../emitter.ts'
import { ops, type OpDefinition } from '../ops/index.ts'
import type { Shape } from '../dims.ts'
import type { Program } from '../program.ts'
import type { OpAttributes, OpName, Value } from '../value.ts'
import {
  AttributeProto_AttributeType as AttributeType,
  ModelProtoSchema,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  type AttributeProtoSchema,
  type NodeProtoSchema,
  type TensorProtoSchema,
  type ValueInfoProtoSchema,
} from './onnx_pb.ts'

/** Element types of ONNX by our names: those of programs, and what exists between nodes only. */
export const onnxTypes = {
  f32: DataType.FLOAT,
  i64: DataType.INT64,
  i8: DataType.INT8,
  u8: DataType.UINT8,
  u16: DataType.UINT16,
  f16: DataType.FLOAT16,
  bool: DataType.BOOL,
} as const

/** A tensor that a model is given, gives, or holds. */
export interface OnnxTensor {
  readonly name: string
  readonly dtype: keyof typeof onnxTypes
  readonly shape: Shape
}

/** Where the values of a tensor lie: bytes of a file beside the model, all of it where no range is given. */
export interface ExternalPlace {
  readonly location: string
  readonly offset?: number
  readonly length?: number
}

/** Other ONNX forms of some ops than those of the table. */
export type Lowerings = { readonly [K in OpName]?: (e: Emitter, attributes: OpAttributes[K]) => void }

interface ProgramOptions {
  /** What a port is called in the model. */
  readonly nameOf?: (port: string) => string
  readonly lowerings?: Lowerings
}

interface ModelOptions {
  readonly name: string
  readonly inputs: readonly OnnxTensor[]
  readonly outputs: readonly OnnxTensor[]
  /** Name of a result before these, an empty sequence; none by default. */
  readonly mark?: string | undefined
  /** Version of the operators, and that of the file format: see https://github.com/onnx/onnx/blob/main/docs/Versioning.md. */
  readonly opset: number
  readonly irVersion: number
}

/** Collects the nodes of an ONNX model: programs, and what is written around them. */
export class GraphWriter {
  readonly #nodes: MessageInitShape<typeof NodeProtoSchema>[] = []
  readonly #initializers = new Map<string, MessageInitShape<typeof TensorProtoSchema>>()
  #temporaries = 0

  temporary(): string {
    return `%${this.#temporaries++}`
  }

  /** A node of ONNX, or of `com.microsoft` where its type begins so. -> the name of its first output */
  node(
    type: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
    outputs: readonly string[] = [this.temporary()],
  ): string {
    const contrib = type.startsWith(contribPrefix)
    this.#nodes.push({
      domain: contrib ? contribDomain : '',
      opType: contrib ? type.slice(contribPrefix.length) : type,
      input: [...inputs],
      output: [...outputs],
      attribute: Object.entries(attributes).map(([name, value]) => toAttribute(name, value)),
    })
    return outputs[0] ?? ''
  }

  /** i64 [values] */
  ints(values: readonly number[]): string {
    const dims = [BigInt(values.length)]
    return this.#initializer(`ints ${values.join(' ')}`, {
      dataType: DataType.INT64,
      dims,
      int64Data: values.map(BigInt),
    })
  }

  /** An i64 scalar. */
  int(value: number): string {
    return this.#initializer(`int ${value}`, { dataType: DataType.INT64, dims: [], int64Data: [BigInt(value)] })
  }

  /** An f32 scalar. */
  float(value: number): string {
    return this.#initializer(`float ${value}`, { dataType: DataType.FLOAT, dims: [], floatData: [value] })
  }

  /** A tensor whose values lie in a file beside the model. */
  external({ name, dtype, shape }: OnnxTensor, { location, offset, length }: ExternalPlace): string {
    const range = Object.entries({ offset, length }).filter(([, value]) => value !== undefined)
    return this.#initializer(name, {
      dataType: onnxTypes[dtype],
      dims: shape.map(BigInt),
      dataLocation: DataLocation.EXTERNAL,
      externalData: [
        { key: 'location', value: location },
        ...range.map(([key, value]) => ({ key, value: String(value) })),
      ],
    })
  }

  /** The operations of a program: its inputs are there under their names, and its outputs are afterwards. */
  program(target: Program, { nameOf = (port) => port, lowerings = {} }: ProgramOptions = {}): void {
    const names = new Map<Value, string>()
    for (const { name, value } of target.inputs) names.set(value, nameOf(name))
    for (const { name, value } of target.outputs) if (!names.has(value)) names.set(value, nameOf(name))
    const named = (value: Value): string => {
      const name = names.get(value) ?? this.temporary()
      names.set(value, name)
      return name
    }
    const made = new Map<string, readonly string[]>()
    const once = (key: string, make: () => readonly string[]): readonly string[] => {
      const known = made.get(key) ?? make()
      made.set(key, known)
      return known
    }
    // A node may be run for one of its results while another is given: the given one keeps its name.
    const given = new Set(target.inputs.map((port) => port.value))
    const results = new Set(target.outputs.map(({ value }) => value))
    const read = new Set([...target.nodes.flatMap(({ inputs }) => inputs), ...results])
    for (const item of target.nodes) {
      const emitter: Emitter = {
        inputs: item.inputs.map(named),
        outputs: item.outputs.map((output) => (given.has(output) ? this.temporary() : named(output))),
        inputTypes: item.inputs.map((input) => input.type),
        outputTypes: item.outputs.map((output) => output.type),
        passOn: (name) => {
          const [value] = item.outputs
          if (value === undefined) return
          // A result keeps the name that it is asked for under.
          if (results.has(value)) this.node('Identity', [name], {}, [named(value)])
          else names.set(value, name)
        },
        reads: (output) => {
          const value = item.outputs[output]
          return value !== undefined && read.has(value) && !given.has(value)
        },
        maker: (input) => {
          const value = item.inputs[input]
          if (value === undefined || given.has(value)) return undefined
          const { op, attributes, inputs } = value.node
          return { op, attributes, inputs: inputs.map(named) } as Maker
        },
        node: (type, inputs, outputs, attributes) => void this.node(type, inputs, attributes, outputs),
        contrib: (type, inputs, outputs, attributes) =>
          void this.node(contribPrefix + type, inputs, attributes, outputs),
        ints: (values) => this.ints(values),
        float: (value) => this.float(value),
        temporary: () => this.temporary(),
        once,
      }
      const emit = (lowerings[item.op] ?? ops[item.op].emit) as OpDefinition<OpAttributes[OpName]>['emit']
      emit(emitter, item.attributes)
    }
    // A value under two output names, or an input that is also an output, is passed on by an Identity.
    for (const { name, value } of target.outputs) {
      const made = names.get(value)
      if (made === undefined) throw internalError(`output "${name}" of ${target.name} was not emitted`)
      if (made !== nameOf(name)) this.node('Identity', [made], {}, [nameOf(name)])
    }
  }

  /** The bytes of the model. */
  model({ name, inputs, outputs, mark, opset, irVersion }: ModelOptions): Uint8Array {
    if (mark !== undefined) this.node('SequenceEmpty', [], { dtype: DataType.FLOAT }, [mark])
    this.#checkDefined(name, inputs, outputs)
    return toBinary(
      ModelProtoSchema,
      create(ModelProtoSchema, {
        irVersion: BigInt(irVersion),
        producerName: 'lowrank',
        opsetImport: [
          { domain: '', version: BigInt(opset) },
          { domain: contribDomain, version: 1n },
        ],
        graph: {
          name,
          input: inputs.map(valueInfo),
          output: [...(mark === undefined ? [] : [sequenceInfo(mark)]), ...outputs.map(valueInfo)],
          initializer: [...this.#initializers.values()],
          node: this.#nodes,
        },
      }),
    )
  }

  #checkDefined(model: string, inputs: readonly OnnxTensor[], outputs: readonly OnnxTensor[]): void {
    const defined = new Set([...inputs.map(({ name }) => name), ...this.#initializers.keys()])
    const need = (name: string, what: string): void => {
      if (!defined.has(name)) throw internalError(`${model}: ${what} reads "${name}", which nothing makes`)
    }
    for (const { opType, input = [], output = [] } of this.#nodes) {
      for (const name of input) need(name, String(opType))
      for (const name of output) defined.add(name)
    }
    for (const { name } of outputs) need(name, 'an output')
  }

  #initializer(name: string, tensor: MessageInitShape<typeof TensorProtoSchema>): string {
    this.#initializers.set(name, { name, ...tensor })
    return name
  }
}

const contribDomain = 'com.microsoft'
/** In front of the types of its nodes. */
export const contribPrefix = `${contribDomain}.`

function valueInfo({ name, dtype, shape }: OnnxTensor): MessageInitShape<typeof ValueInfoProtoSchema> {
  const dim = shape.map((size) =>
    typeof size === 'number'
      ? { value: { case: 'dimValue' as const, value: BigInt(size) } }
      : { value: { case: 'dimParam' as const, value: size } },
  )
  return { name, type: { value: { case: 'tensorType', value: { elemType: onnxTypes[dtype], shape: { dim } } } } }
}

/** Of a sequence of tensors in f32. */
function sequenceInfo(name: string): MessageInitShape<typeof ValueInfoProtoSchema> {
  const elemType = { value: { case: 'tensorType' as const, value: { elemType: DataType.FLOAT } } }
  return { name, type: { value: { case: 'sequenceType', value: { elemType } } } }
}

function toAttribute(name: string, value: OnnxAttribute): MessageInitShape<typeof AttributeProtoSchema> {
  if (typeof value === 'number') return { name, type: AttributeType.INT, i: BigInt(value) }
  if (typeof value === 'string') return { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) }
  if ('float' in value) return { name, type: AttributeType.FLOAT, f: value.float }
  return { name, type: AttributeType.INTS, ints: value.map(BigInt) }
}
