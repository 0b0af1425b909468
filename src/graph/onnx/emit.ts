import type { Program } from '../program.ts'
import { GraphWriter, type Lowerings } from './writer.ts'

/** Opset 26 is the first with BitCast, the newest that ONNX Runtime 1.30 accepts. */
const version = { opset: 26, irVersion: 11 }

interface ModelForm {
  /** Inputs that are the same in every run, whose values lie in a file beside the model that is named as they are. */
  readonly constants?: ReadonlySet<string>
  /** Name of a result before all others, an empty sequence; there is none by default. */
  readonly mark?: string
  readonly lowerings?: Lowerings
}

/** The program as the bytes of an ONNX model. Inputs and outputs keep their names; dimensions stay symbolic. */
export function toOnnx(target: Program, { constants = new Set(), mark, lowerings = {} }: ModelForm = {}): Uint8Array {
  const writer = new GraphWriter()
  const inputs = target.inputs.map(({ name, value }) => ({ name, ...value.type }))
  for (const input of inputs) if (constants.has(input.name)) writer.external(input, { location: input.name })
  writer.program(target, { lowerings })
  return writer.model({
    name: target.name,
    inputs: inputs.filter(({ name }) => !constants.has(name)),
    outputs: target.outputs.map(({ name, value }) => ({ name, ...value.type })),
    mark,
    ...version,
  })
}
