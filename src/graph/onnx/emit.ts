import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { internalError } from '../../util/errors.ts'
import type { Emitter, Maker, OnnxAttribute } from '../emitter.ts'
import { ops, type OpDefinition } from '../ops/index.ts'
import type { Program } from '../program.ts'
import type { DType, OpAttributes, OpName, TensorType, Value } from '../value.ts'
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

/** Opset 26 is the first with BitCast, the newest that ONNX Runtime 1.30 accepts. */
const OPSET = 26n
const IR_VERSION = 11n

const elementTypes: Record<DType, DataType> = {
  f32: DataType.FLOAT,
  i64: DataType.INT64,
  i8: DataType.INT8,
  u8: DataType.UINT8,
  u16: DataType.UINT16,
}

/**
 * The program as the bytes of an ONNX model. Inputs and outputs keep their names; dimensions stay symbolic. `constants`: inputs that are
 * the same in every run, whose values lie in a file beside the model that is named as they are.
 */
export function toOnnx(target: Program, constants: ReadonlySet<string> = new Set()): Uint8Array {
  const names = new Map<Value, string>()
  for (const { name, value } of target.inputs) names.set(value, name)
  for (const { name, value } of target.outputs) if (!names.has(value)) names.set(value, name)
  const nodes: MessageInitShape<typeof NodeProtoSchema>[] = []
  const initializers = new Map<string, MessageInitShape<typeof TensorProtoSchema>>()
  let temporaries = 0
  const temporary = (): string => `%${temporaries++}`
  const nameOf = (value: Value): string => {
    const known = names.get(value)
    if (known !== undefined) return known
    const name = temporary()
    names.set(value, name)
    return name
  }
  const initializer = (name: string, tensor: MessageInitShape<typeof TensorProtoSchema>): string => {
    initializers.set(name, { name, ...tensor })
    return name
  }
  const node = (
    domain: string,
    opType: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): void => {
    const attribute = Object.entries(attributes).map(([name, value]) => toAttribute(name, value))
    nodes.push({ domain, opType, input: [...inputs], output: [...outputs], attribute })
  }

  // A node may be run for one of its results while another is given: the given one keeps its name.
  const given = new Set(target.inputs.map((port) => port.value))
  for (const item of target.nodes) {
    const emitter: Emitter = {
      inputs: item.inputs.map(nameOf),
      outputs: item.outputs.map((output) => (given.has(output) ? temporary() : nameOf(output))),
      inputTypes: item.inputs.map((input) => input.type),
      outputTypes: item.outputs.map((output) => output.type),
      maker: (input) => {
        const value = item.inputs[input]
        if (value === undefined || given.has(value)) return undefined
        const { op, attributes, inputs } = value.node
        return { op, attributes, inputs: inputs.map(nameOf) } as Maker
      },
      node: (...rest) => node('', ...rest),
      contrib: (...rest) => node('com.microsoft', ...rest),
      ints: (values) =>
        initializer(`ints ${values.join(' ')}`, {
          dataType: DataType.INT64,
          dims: [BigInt(values.length)],
          int64Data: values.map(BigInt),
        }),
      float: (value) => initializer(`float ${value}`, { dataType: DataType.FLOAT, dims: [], floatData: [value] }),
      temporary,
    }
    const { emit } = ops[item.op] as OpDefinition<OpAttributes[OpName]>
    emit(emitter, item.attributes)
  }
  // A value under two output names, or an input that is also an output, is passed on by an Identity.
  for (const { name, value } of target.outputs) {
    const made = names.get(value)
    if (made === undefined) throw internalError(`output "${name}" of ${target.name} was not emitted`)
    if (made !== name) node('', 'Identity', [made], [name])
  }

  return toBinary(
    ModelProtoSchema,
    create(ModelProtoSchema, {
      irVersion: IR_VERSION,
      producerName: 'lowrank',
      opsetImport: [
        { domain: '', version: OPSET },
        { domain: 'com.microsoft', version: 1n },
      ],
      graph: {
        name: target.name,
        input: target.inputs
          .filter(({ name }) => !constants.has(name))
          .map(({ name, value }) => valueInfo(name, value.type)),
        output: target.outputs.map(({ name, value }) => valueInfo(name, value.type)),
        initializer: [
          ...initializers.values(),
          ...target.inputs
            .filter(({ name }) => constants.has(name))
            .map(({ name, value }) => external(name, value.type)),
        ],
        node: nodes,
      },
    }),
  )
}

/** A tensor whose values are all of the file of its name. */
function external(name: string, { dtype, shape }: TensorType): MessageInitShape<typeof TensorProtoSchema> {
  return {
    name,
    dataType: elementTypes[dtype],
    dims: shape.map(BigInt),
    dataLocation: DataLocation.EXTERNAL,
    externalData: [{ key: 'location', value: name }],
  }
}

function valueInfo(name: string, { dtype, shape }: TensorType): MessageInitShape<typeof ValueInfoProtoSchema> {
  const dim = shape.map((size) =>
    typeof size === 'number'
      ? { value: { case: 'dimValue' as const, value: BigInt(size) } }
      : { value: { case: 'dimParam' as const, value: size } },
  )
  return { name, type: { value: { case: 'tensorType', value: { elemType: elementTypes[dtype], shape: { dim } } } } }
}

function toAttribute(name: string, value: OnnxAttribute): MessageInitShape<typeof AttributeProtoSchema> {
  if (typeof value === 'number') return { name, type: AttributeType.INT, i: BigInt(value) }
  if (typeof value === 'string') return { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) }
  if ('float' in value) return { name, type: AttributeType.FLOAT, f: value.float }
  return { name, type: AttributeType.INTS, ints: value.map(BigInt) }
}
