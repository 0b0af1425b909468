import { b } from '../graph/build.ts'
import { lastDim, type Value } from '../graph/value.ts'
import type { DecoderConfig, Layers, LinearOptions } from './decoder.ts'
import { families } from './families/index.ts'
import { blockContext } from './block-context.ts'
import { embeddingName, headName } from './names.ts'

/** A weight that a decoder has, as its checkpoint names it. */
export interface WeightSpec {
  readonly name: string
  readonly shape: readonly number[]
}

/** A linear layer of a block: weight [outFeatures, inFeatures]. */
interface LinearSpec {
  /** Relative to the block: `self_attn.q_proj`. */
  readonly module: string
  readonly inFeatures: number
  readonly outFeatures: number
}

/** Every weight of a decoder. A tied head is not listed: it is the embedding. */
export function weightSpecs(config: DecoderConfig): WeightSpec[] {
  const { trunk, hiddenSize, vocabSize, tieWordEmbeddings } = config
  const block = blockOf(config).specs
  // Norms come first: random weights are drawn by their place in this list.
  const ordered = [...block.filter(({ name }) => isNorm(name)), ...block.filter(({ name }) => !isNorm(name))]
  const head = headOf(config).filter(({ name }) => !tieWordEmbeddings || name !== headName)
  return [
    { name: embeddingName(config), shape: [vocabSize, hiddenSize] },
    ...config.layers.flatMap((_, i) =>
      ordered.map(({ name, shape }) => ({ name: `${trunk}.layers.${i}.${name}`, shape })),
    ),
    ...head,
  ]
}

/** Whether a weight is that of a norm. */
export function isNorm(name: string): boolean {
  return name.endsWith('norm.weight')
}

/** The linear layers of a block. */
export function linearSpecs(config: DecoderConfig): readonly LinearSpec[] {
  return blockOf(config).linears
}

/** Paths of the linear layers of all blocks. */
export function blockLinearPaths(config: DecoderConfig): string[] {
  const modules = linearSpecs(config).map(({ module }) => module)
  return config.layers.flatMap((_, i) => modules.map((module) => `${config.trunk}.layers.${i}.${module}`))
}

/** Paths of all linear layers, the output head last. */
export function linearPaths(config: DecoderConfig): string[] {
  return [...blockLinearPaths(config), 'lm_head']
}

/** Notes the weights that a computation asks for. */
class Recorder implements Layers {
  readonly specs: WeightSpec[] = []
  readonly linears: LinearSpec[] = []

  parameter(name: string, shape: readonly number[]): Value {
    this.specs.push({ name, shape })
    return b.input(name, { dtype: 'f32', shape })
  }

  linear(module: string, x: Value, { outFeatures, bias }: LinearOptions): Value {
    const inFeatures = Number(lastDim(x.type))
    this.linears.push({ module, inFeatures, outFeatures })
    const y = b.linear(x, this.parameter(`${module}.weight`, [outFeatures, inFeatures]))
    if (bias) this.parameter(`${module}.bias`, [outFeatures])
    return y
  }
}

/** What a block asks for; all blocks of a family are alike in this. */
function blockOf(config: DecoderConfig): Recorder {
  const recorder = new Recorder()
  const x = b.input('x', { dtype: 'f32', shape: ['batch', 'seq', config.hiddenSize] })
  families[config.modelType].block(recorder, config, x, blockContext(config, 0).context)
  return recorder
}

function headOf(config: DecoderConfig): readonly WeightSpec[] {
  const recorder = new Recorder()
  families[config.modelType].head(recorder, config, b.input('x', { dtype: 'f32', shape: ['rows', config.hiddenSize] }))
  return recorder.specs
}
