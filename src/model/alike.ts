import type { LayerKind } from './decoder.ts'
import type { ParameterPolicy } from './layers.ts'
import type { LoraModule } from './peft/lora.ts'

/** What a block is made of: how its weights are stored, which are trained, which modules have an adapter. */
export interface BlockParts {
  readonly policy: ParameterPolicy
  /** The adapter of a linear layer by its path in the model (`model.layers.0.self_attn.q_proj`), if it has one. */
  readonly adapterOf: (path: string) => LoraModule | undefined
}

/** Where a block stands, as far as it is another one for it. */
interface Place {
  readonly prefix: string
  readonly kind: LayerKind
  /** Whether it is the first, the last, and whether it hands a gradient on. */
  readonly ends: string
}

interface Written<Block> {
  readonly place: Place
  readonly block: Block
  readonly asked: readonly Asked[]
}

/** What was asked about a name within the block, and the answer as text. */
interface Asked {
  readonly about: keyof typeof questions
  readonly name: string
  readonly answer: string
}

/**
 * Writes a block only where there is no other that differs from it in nothing but the names of its weights: that one has its programs. It is the
 * other where whatever was asked while that was written has the same answers for this one. `renamed`: a block with other names for its weights.
 */
export function writingOnce<Block>(
  parts: BlockParts,
  renamed: (block: Block, nameOf: (name: string) => string) => Block,
): (place: Place, write: (parts: BlockParts) => Block) => Block {
  const written: Written<Block>[] = []
  const answerTo = (about: Asked['about'], path: string): string =>
    JSON.stringify(questions[about](parts, path) ?? null)
  return (place, write) => {
    const { prefix, kind, ends } = place
    const known = written.find(
      ({ place: other, asked }) =>
        other.kind === kind &&
        other.ends === ends &&
        asked.every(({ about, name, answer }) => answerTo(about, prefix + name) === answer),
    )
    if (known !== undefined) return renamed(known.block, (name) => prefix + name.slice(known.place.prefix.length))
    const asked: Asked[] = []
    const block = write(
      recorded(parts, (about, path) => {
        asked.push({ about, name: path.slice(prefix.length), answer: answerTo(about, path) })
      }),
    )
    written.push({ place, block, asked })
    return block
  }
}

const questions = {
  storage: ({ policy }: BlockParts, name: string) => policy.storage(name),
  trainable: ({ policy }: BlockParts, name: string) => policy.trainable(name),
  adapter: ({ adapterOf }: BlockParts, name: string) => adapterOf(name),
}

function recorded({ policy, adapterOf }: BlockParts, ask: (about: Asked['about'], path: string) => void): BlockParts {
  return {
    policy: {
      storage: (name) => {
        ask('storage', name)
        return policy.storage(name)
      },
      trainable: (name) => {
        ask('trainable', name)
        return policy.trainable(name)
      },
    },
    adapterOf: (path) => {
      ask('adapter', path)
      return adapterOf(path)
    },
  }
}
