import { describe, expect, test } from 'vitest'
import { parseDecoderConfig } from '../model/config.ts'
import { buildStages, type BlockStage } from '../model/stages.ts'
import { b } from './build.ts'
import { gradients } from './grad.ts'
import { chooseSaved } from './saved.ts'
import type { Value } from './value.ts'

const sizes = { rows: 16 }
const input = (name: string, ...shape: (number | string)[]): Value => b.input(name, { dtype: 'f32', shape })
const [x, z] = [input('x', 'rows', 4), input('z', 'rows', 4)]
const [u, v] = [input('u', 8, 4), input('v', 8, 4)]
const [dy, given8] = [input('dy', 'rows', 8), input('given', 'rows', 8)]

/** What is kept of y, for its gradients with respect to these. */
function saved(y: Value, wrt: readonly Value[], given: readonly Value[] = [x, z, u, v]): Value[] {
  const grads = gradients([{ value: y, cotangent: dy }], wrt).filter((value) => value !== undefined)
  return chooseSaved({ forward: [y], gradients: grads, given, sizes })
}

describe('the minimum cut', () => {
  test('keeps what is made of a sum rather than its two summands', () => {
    const sum = b.add(b.linear(x, u), b.linear(z, v))
    const [kept, ...others] = saved(b.silu(sum), [u, v])
    // The derivative, which is as large as the sum and the last before the gradient comes in.
    expect([kept?.node.op, others]).toEqual(['add', []])
    expect(kept).not.toBe(sum)
  })

  test('keeps the summands where the gradient reads both anyway', () => {
    const [p, q] = [b.linear(x, u), b.linear(z, v)]
    expect(new Set(saved(b.mul(p, q), [u, v]))).toEqual(new Set([p, q]))
  })

  test('keeps what is small and computes from it what is large', () => {
    const narrow = b.linear(x, input('row', 1, 4))
    const wide = b.exp(b.mul(narrow, given8))
    expect(saved(wide, [x], [x, given8, narrow.node.inputs[1]!])).toEqual([narrow])
  })

  test('keeps two small values rather than one that is larger than both', () => {
    const [p, q] = [b.linear(x, input('row p', 1, 4)), b.linear(z, input('row q', 1, 4))]
    const wide = b.exp(b.add(b.mul(p, given8), q))
    const given = [x, z, given8, p.node.inputs[1]!, q.node.inputs[1]!]
    expect(new Set(saved(wide, [x, z], given))).toEqual(new Set([p, q]))
  })

  test('keeps of an activation and its gate what the gradient is multiplied by: nothing is computed again', () => {
    const [gate, up] = [b.linear(x, u), b.linear(z, v)]
    const y = b.gated(gate, up, 'silu')
    const kept = saved(y, [u, v])
    expect(kept).toHaveLength(2)
    expect(kept).toContain(y.node.outputs[1])
    expect(kept).not.toContain(gate)
    // Where the product itself is read too, that would be three values as large.
    expect(new Set(saved(b.mul(y, y), [u, v]))).toEqual(new Set([gate, up]))
  })

  test('keeps the one number a row that a norm divides by, so that the norm is not computed again', () => {
    const h = b.linear(x, u)
    const norm = b.rmsNorm(h, input('scale', 8), 1e-6)
    const given = [x, u, z, v, norm.node.inputs[1]!]
    expect(new Set(saved(norm, [x], given))).toEqual(new Set([h, norm.node.outputs[1]]))
  })

  test('keeps nothing whose size does not follow from what is given', () => {
    const whole = b.linear(x, u)
    const [first = whole] = b.split(whole, b.integers([1, 1]), { axis: 0, parts: ['few', 'others'] })
    const known = { few: 8, others: 8, ...sizes }
    const grads = gradients([{ value: b.exp(first), cotangent: input('dfirst', 'few', 8) }], [u]).filter(
      (value) => value !== undefined,
    )
    expect(chooseSaved({ forward: [b.exp(first)], gradients: grads, given: [x, u], sizes: known })).toEqual([whole])
  })

  test('keeps nothing that follows cheaply from what is given', () => {
    expect(saved(b.exp(b.sigmoid(given8)), [given8], [given8])).toEqual([])
  })

  test('keeps nothing of what only the result needs', () => {
    // The gradient of a linear layer reads its input, which is given, and not what it gives.
    expect(saved(b.linear(x, u), [u])).toEqual([])
  })
})

describe('a Llama block that trains LoRA on every linear layer', () => {
  const config = parseDecoderConfig(
    {
      model_type: 'llama',
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      vocab_size: 100,
    },
    'config.json',
  )
  const block = (activations: 'keep' | 'recompute'): BlockStage => {
    const { blocks } = buildStages({
      config,
      policy: { storage: () => 'F32', trainable: (name) => name.includes('.lora_') },
      activations,
      adapterOf: () => ({ r: 4, scale: 2, dropout: 0.1 }),
    })
    return blocks[0]!
  }
  /** Products with weights that both programs run, and those of the forward one. */
  const repeated = ({ forward, backward }: BlockStage): { again: number; all: number } => {
    const expensive = forward.nodes.filter(({ op }) => op === 'linear')
    const second = new Set(backward?.nodes)
    return { again: expensive.filter((node) => second.has(node)).length, all: expensive.length }
  }

  test('runs no product with a weight a second time when activations are kept', () => {
    // Seven layers, each with W, A and B.
    expect(repeated(block('keep'))).toEqual({ again: 0, all: 21 })
  })

  test('runs them again when they are not', () => {
    expect(repeated(block('recompute')).again).toBeGreaterThanOrEqual(18)
  })

  test('is given everything that its forward program keeps, and keeps nothing that it is given', () => {
    const { forward, backward } = block('keep')
    const names = (ports: readonly { readonly name: string }[] = []): string[] =>
      ports.map(({ name }) => name).filter((name) => name.startsWith('saved.'))
    expect(names(backward?.inputs)).toEqual(names(forward.outputs))
    expect(names(forward.outputs).length).toBeGreaterThan(5)
    const given = new Set(forward.inputs.map(({ value }) => value))
    expect(forward.outputs.filter(({ value }) => given.has(value))).toEqual([])
  })
})
