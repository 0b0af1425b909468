import { internalError } from '../../util/errors.ts'
import type { Builder } from '../builder.ts'
import { sameShape } from '../dims.ts'
import type { Emitter } from '../emitter.ts'
import type { Activation, Value } from '../value.ts'
import { made, need, pair, type OpDefinitions } from './definition.ts'

/** gelu_tanh(x) = x s(z), with the logistic function s of z = 2 sqrt(2 / pi) (x + cubic x^3). Hendrycks and Gimpel 2016. */
const twice = 2 * Math.sqrt(2 / Math.PI)
const cubic = 0.044715

interface Gated {
  readonly gate: Value
  readonly up: Value
  readonly y: Value
  readonly share: Value
}

/** An activation x share(x), with a share between 0 and 1. */
interface ActivationForm {
  /** x -> act(x), by the one node that the runtime has for it. */
  readonly alone: (e: Emitter, x: string, result: string) => void
  /** x -> share(x) */
  readonly share: (e: Emitter, x: string, result: string) => void
  /** up act'(gate), in few operations on whole tensors: each takes as long as reading and writing them does. */
  readonly slope: (b: Builder, gated: Gated) => Value
}

const forms: Readonly<Record<Activation, ActivationForm>> = {
  silu: {
    alone: (e, x, result) => e.contrib('QuickGelu', [x], [result], { alpha: { float: 1 } }),
    share: (e, x, result) => e.node('Sigmoid', [x], [result]),
    // s + x s (1 - s), times up.
    slope: (b, { up, y, share }) => b.add(b.mul(b.sub(up, y), share), y),
  },
  gelu_tanh: {
    alone: (e, x, result) => e.contrib('FastGelu', [x], [result]),
    share: (e, x, result) => {
      const cube = made(e, 'Mul', [made(e, 'Mul', [x, x]), e.float(twice * cubic)])
      const z = made(e, 'Mul', [made(e, 'Add', [cube, e.float(twice)]), x])
      e.node('Sigmoid', [z], [result])
    },
    // s + x s (1 - s) z', times up.
    slope: (b, { gate, up, y, share }) => {
      const dz = b.add(b.scale(b.mul(gate, gate), 3 * twice * cubic), b.constant(twice))
      return b.add(b.mul(up, share), b.mul(b.sub(y, b.mul(y, share)), dz))
    },
  },
  gelu: {
    alone: (e, x, result) => e.contrib('Gelu', [x], [result]),
    share: (e, x, result) => {
      const erf = made(e, 'Erf', [made(e, 'Mul', [x, e.float(Math.SQRT1_2)])])
      e.node('Mul', [made(e, 'Add', [erf, e.float(1)]), e.float(0.5)], [result])
    },
    // The share is that of a normal distribution below x, whose derivative is its density.
    slope: (b, { gate, up, share }) => {
      const density = b.scale(b.exp(b.scale(b.mul(gate, gate), -0.5)), 1 / Math.sqrt(2 * Math.PI))
      return b.mul(up, b.add(share, b.mul(gate, density)))
    },
  },
}

/** The activation of an MLP and its gate. Shazeer 2020. */
export const gated = {
  /**
   * (gate, up) -> act(gate) up, act(gate), and the share act(gate) / gate. The gradient is dy times act(gate), and dy times up act'(gate): two
   * tensors as large as gate and up, so that a program that may keep as much keeps these and computes nothing again.
   */
  gated: {
    memory: { scratch: 1 },
    sparing: true,
    infer: (inputs) => {
      const [gate, up] = pair(inputs)
      need(sameShape(gate.shape, up.shape) && gate.dtype === 'f32' && up.dtype === 'f32', 'gated', inputs)
      return [gate, gate, gate]
    },
    vjp: (b, { inputs, outputs, attributes: { activation } }, dy, ...others) => {
      if (others.some((other) => other !== undefined))
        throw internalError('gated: only the product has a gradient rule')
      const [gate, up] = pair(inputs)
      const [y, activated, share] = outputs
      if (y === undefined || activated === undefined || share === undefined)
        throw internalError('gated of other results')
      const slope = forms[activation].slope(b, { gate, up, y, share })
      return [b.mul(dy, slope), b.mul(dy, activated)]
    },
    emit: (e, attributes) => {
      if (e.reads(1) || e.reads(2)) return emitByShare(e, attributes)
      const [gate, up] = pair(e.inputs)
      const activated = e.temporary()
      forms[attributes.activation].alone(e, gate, activated)
      e.node('Mul', [activated, up], e.outputs.slice(0, 1))
    },
  },
} satisfies Partial<OpDefinitions>

/** In operators of ONNX alone. */
export function emitByShare(e: Emitter, { activation }: { readonly activation: Activation }): void {
  const [gate, up] = pair(e.inputs)
  const [y = '', activated = '', share = ''] = e.outputs
  forms[activation].share(e, gate, share)
  e.node('Mul', [gate, share], [activated])
  if (e.reads(0)) e.node('Mul', [activated, up], [y])
}
