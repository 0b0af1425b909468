import type { MemoryChoice } from '../config/index.ts'
import { b } from '../graph/build.ts'
import type { DimValues } from '../graph/dims.ts'
import { gradients } from '../graph/grad.ts'
import { program, type Port, type Program } from '../graph/program.ts'
import { chooseSaved } from '../graph/saved.ts'
import type { Value } from '../graph/value.ts'
import { attentionParts, treeParts } from '../util/attention.ts'
import { type BlockParts, writingOnce } from './alike.ts'
import { blockContext } from './block-context.ts'
import type { DecoderConfig, LayerKind } from './decoder.ts'
import { families } from './families/index.ts'
import { StageLayers, type StageDropout, type StageParameter } from './layers.ts'
import { embeddingName, headName } from './names.ts'
import { withLora, type LoraModule } from './peft/lora.ts'
import { sharing } from './sharing.ts'

/** A result of a program that is the gradient of a parameter. */
interface GradientPort {
  readonly port: string
  readonly name: string
}

/**
 * A transformer block as programs. Inputs `x`, those of `blockContext`, parameters and dropout masks by port; `y` and `dy` of the last
 * block are [rows, hidden].
 * `evaluate`: -> `y`. `forward`: -> `y` and values named `saved.N`. `backward`: those and `dy` -> `dx` (if wanted) and gradients.
 */
export interface BlockStage {
  readonly kind: LayerKind
  readonly evaluate: Program
  readonly forward: Program
  /** Undefined where nothing at or below the block is trained. */
  readonly backward: Program | undefined
  readonly parameters: readonly StageParameter[]
  readonly dropouts: readonly StageDropout[]
  readonly gradients: readonly GradientPort[]
}

/**
 * Final norm, output head and loss over rows `x` [rows, hidden] with `targets` [rows]. `train`: -> `losses` [rows], `dx`, gradients of
 * the sum of losses. `evaluate`: -> `losses`, `predicted` [rows]. `logits`: -> `logits` [rows, vocabulary].
 */
interface HeadStage {
  readonly train: Program
  readonly evaluate: Program
  readonly logits: Program
  readonly parameters: readonly StageParameter[]
  readonly dropouts: readonly StageDropout[]
  readonly gradients: readonly GradientPort[]
}

export interface DecoderStages {
  readonly blocks: readonly BlockStage[]
  readonly head: HeadStage
  readonly trainsEmbedding: boolean
}

export interface StagesOptions extends BlockParts {
  readonly config: DecoderConfig
  /** Whether a block returns what its backward pass needs, or computes it again. */
  readonly activations: MemoryChoice['activations']
  /** Whether the head has a weight of its own, although the checkpoint ties it to the embedding (a saved copy is trained). */
  readonly separateHead?: boolean
  /** Whether blocks are for micro-batches whose rows share what their examples begin with. */
  readonly trees?: boolean | undefined
  /** Share of each label that is spread over the vocabulary, in the loss that is trained on; 0 by default. */
  readonly labelSmoothing?: number | undefined
}

/**
 * What the symbols of the stages stand for in a micro-batch of `batch` x `seq` positions, `rows` of which predict a label. Of attention
 * masks there is one, or one for each row. Where rows are trees, a part is taken to see all keys up to its last query, which is the most.
 */
export function stageSizes({
  batch,
  seq,
  rows,
  masks = 1,
  trees = false,
}: Readonly<Record<'batch' | 'seq' | 'rows', number>> & {
  readonly masks?: number
  readonly trees?: boolean
}): DimValues {
  if (trees) {
    const end = (part: number): number => Math.floor(((part + 1) * seq) / treeParts)
    const parts = Array.from({ length: treeParts }, (_, i) => [
      [`part ${i}`, end(i) - end(i - 1)],
      [`before ${i}`, 0],
      [`gap ${i}`, 0],
      [`near ${i}`, end(i)],
      [`after ${i}`, seq - end(i)],
      [`keys ${i}`, end(i)],
    ])
    return { batch, seq, rows, '1|batch': masks, ...(Object.fromEntries(parts.flat()) as DimValues) }
  }
  const end = (part: number): number => Math.floor(((part + 1) * seq) / attentionParts)
  const parts = Array.from({ length: attentionParts }, (_, i) => [
    [`part ${i}`, end(i) - end(i - 1)],
    [`upto ${i}`, end(i)],
  ])
  return { batch, seq, rows, '1|batch': masks, ...(Object.fromEntries(parts.flat()) as DimValues) }
}

/** To weigh saved values with; what is kept does not depend on them much. */
const [typicalRows, typicalTrees] = [false, true].map((trees) =>
  stageSizes({ batch: 4, seq: 256, rows: 512, trees }),
) as [DimValues, DimValues]

/** Writes all stages of a decoder and differentiates them. Stages that compute the same share their programs. */
export function buildStages(options: StagesOptions): DecoderStages {
  const { config, policy } = options
  const share = sharing()
  const written = writingOnce(options, renamed)
  const trainsEmbedding = policy.trainable(embeddingName(config))
  let trainedBelow = trainsEmbedding
  const blocks: BlockStage[] = []
  for (const [index, kind] of config.layers.entries()) {
    const place = { index, kind, wantsDx: trainedBelow }
    const ends = JSON.stringify([index === 0, index === config.numHiddenLayers - 1, trainedBelow])
    const block = written({ prefix: prefixOf(config, index), kind, ends }, (parts) =>
      buildBlock({ ...options, ...parts }, place, share),
    )
    trainedBelow ||= block.gradients.length > 0
    blocks.push(block)
  }
  return { blocks, head: buildHead(options, trainedBelow, share), trainsEmbedding }
}

interface Written {
  readonly stage: StageLayers
  readonly y: Value
}

/** The same block with the weights of another layer. */
function renamed(block: BlockStage, nameOf: (name: string) => string): BlockStage {
  return {
    ...block,
    parameters: block.parameters.map((one) => ({
      ...one,
      name: nameOf(one.name),
      ...(one.joined && { joined: one.joined.map(nameOf) }),
    })),
    gradients: block.gradients.map((one) => ({ ...one, name: nameOf(one.name) })),
  }
}

function prefixOf({ trunk }: DecoderConfig, index: number): string {
  return `${trunk}.layers.${index}.`
}

function buildBlock(
  { config, policy, activations, adapterOf, trees }: StagesOptions,
  { index, kind, wantsDx }: { readonly index: number; readonly kind: LayerKind; readonly wantsDx: boolean },
  share: (candidate: Program) => Program,
): BlockStage {
  const family = families[config.modelType]
  const prefix = prefixOf(config, index)
  const input = b.input('x', { dtype: 'f32', shape: ['batch', 'seq', config.hiddenSize] })
  const x = index === 0 ? b.scale(input, config.multipliers.input) : input
  const { context, ports: contextPorts } = blockContext(config, index, { trees })
  const fixed = [...ports({ x: input }), ...contextPorts]
  const write = (training: boolean): Written => {
    const stage = new StageLayers({ prefix, policy })
    const layers = withLora(stage, (module) => evaluationOf(adapterOf(`${prefix}${module}`), training))
    return { stage, y: family.block(layers, config, x, context) }
  }

  const plain = write(false)
  const evaluate = share(
    program({ name: 'block.evaluate', inputs: [...fixed, ...inputPorts(plain.stage)], outputs: ports({ y: plain.y }) }),
  )
  const { stage, y } = write(true)
  const given = [...fixed, ...inputPorts(stage)]
  const givenBackward = [...fixed, ...inputPorts(stage, { unpacked: true })]
  const { gradientPorts, wrt, names } = wantedGradients(stage, input, wantsDx)
  const common = { kind, evaluate, parameters: stage.parameters, dropouts: stage.dropouts, gradients: gradientPorts }
  if (wrt.length === 0) {
    const forward = share(program({ name: 'block.forward', inputs: given, outputs: ports({ y }) }))
    return { ...common, forward, backward: undefined }
  }

  const dy = b.input('dy', y.type)
  const grads = namedGradients(gradients([{ value: y, cotangent: dy }], wrt), names)
  const saved =
    activations === 'recompute'
      ? []
      : chooseSaved({
          forward: [y],
          gradients: grads.map((port) => port.value),
          given: givenBackward.map((port) => port.value),
          sizes: trees === true ? typicalTrees : typicalRows,
        })
  const savedPorts = saved.map((value, i) => ({ name: `saved.${i}`, value }))
  return {
    ...common,
    forward: share(program({ name: 'block.forward', inputs: given, outputs: [...ports({ y }), ...savedPorts] })),
    backward: share(
      program({ name: 'block.backward', inputs: [...givenBackward, ...savedPorts, ...ports({ dy })], outputs: grads }),
    ),
  }
}

function buildHead(
  { config, policy, adapterOf, separateHead = false, labelSmoothing = 0 }: StagesOptions,
  wantsDx: boolean,
  share: (candidate: Program) => Program,
): HeadStage {
  const family = families[config.modelType]
  const x = b.input('x', { dtype: 'f32', shape: ['rows', config.hiddenSize] })
  const targets = b.input('targets', { dtype: 'i64', shape: ['rows'] })
  const tied = config.tieWordEmbeddings && !separateHead
  const rename = (name: string): string => (tied && name === headName ? embeddingName(config) : name)
  const write = (training: boolean): Written => {
    const stage = new StageLayers({ prefix: '', policy, rename })
    return {
      stage,
      y: family.head(
        withLora(stage, (module) => evaluationOf(adapterOf(module), training)),
        config,
        x,
      ),
    }
  }

  const plain = write(false)
  const plainInputs = [...ports({ x, targets }), ...inputPorts(plain.stage)]
  const [plainLosses] = b.crossEntropy(plain.y, targets)
  const predicted = b.argmax(plain.y)
  const { stage, y: logits } = write(true)
  const [losses] = b.crossEntropy(logits, targets, { smoothing: labelSmoothing })
  const { gradientPorts, wrt, names } = wantedGradients(stage, x, wantsDx)
  // The cotangent 1 for every row: gradients of the sum of losses, divided by the label tokens of the whole step later.
  const grads = namedGradients(gradients([{ value: losses, cotangent: b.constant(1) }], wrt), names)
  return {
    evaluate: share(
      program({ name: 'head.evaluate', inputs: plainInputs, outputs: ports({ losses: plainLosses, predicted }) }),
    ),
    logits: share(program({ name: 'head.logits', inputs: plainInputs, outputs: ports({ logits: plain.y }) })),
    train: share(
      program({
        name: 'head.train',
        inputs: [...ports({ x, targets }), ...inputPorts(stage)],
        outputs: [...ports({ losses }), ...grads],
      }),
    ),
    parameters: stage.parameters,
    dropouts: stage.dropouts,
    gradients: gradientPorts,
  }
}

function evaluationOf(adapter: LoraModule | undefined, training: boolean): LoraModule | undefined {
  return adapter === undefined || training ? adapter : { ...adapter, dropout: 0 }
}

function ports(values: Readonly<Record<string, Value>>): Port[] {
  return Object.entries(values).map(([name, value]) => ({ name, value }))
}

/** What a program of the stage may be fed; `unpacked` weights are for programs that multiply from the other side. */
function inputPorts(stage: StageLayers, { unpacked = false }: { readonly unpacked?: boolean } = {}): Port[] {
  return [
    ...stage.parameters
      .flatMap((parameter) => parameter.inputs)
      .filter(({ part }) => unpacked || part !== 'unpacked')
      .map(({ port, value }) => ({ name: port, value })),
    ...stage.dropouts.map(({ port, input }) => ({ name: port, value: input })),
  ]
}

/** What a stage is differentiated with respect to, and what its gradients are called: `dx` if wanted, then the trained parameters. */
function wantedGradients(
  stage: StageLayers,
  x: Value,
  wantsDx: boolean,
): {
  readonly gradientPorts: readonly GradientPort[]
  readonly wrt: readonly Value[]
  readonly names: readonly string[]
} {
  const trained = stage.parameters.filter((parameter) => parameter.trainable)
  const gradientPorts = trained.map(({ port, name }) => ({ port: `d ${port}`, name }))
  return {
    gradientPorts,
    wrt: [...(wantsDx ? [x] : []), ...trained.flatMap((parameter) => parameter.slices)],
    names: [...(wantsDx ? ['dx'] : []), ...gradientPorts.map(({ port }) => port)],
  }
}

/** Every wanted gradient exists: a trained parameter that the loss does not depend on has none, and is left out. */
function namedGradients(grads: readonly (Value | undefined)[], names: readonly string[]): Port[] {
  return grads.flatMap((value, i) => (value === undefined ? [] : [{ name: names[i] ?? '', value }]))
}
