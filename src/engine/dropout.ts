import { dimValue, type DimValues, type Shape } from '../graph/dims.ts'
import { elements } from '../util/shape.ts'
import type { StackMemory } from './memory.ts'
import type { Feeds, HostTensor } from './onnxruntime/runtime.ts'

/**
 * Fills a fresh dropout mask: u8, 1 where an element is kept. `micro` counts the micro-batches, `stage` the blocks (the head comes last);
 * `index` is different for each mask of a stage within a micro-batch.
 */
export type FillMask = (
  mask: Uint8Array,
  p: number,
  place: { readonly micro: number; readonly stage: number; readonly index: number },
) => void

/** The masks that programs of a stage are fed. */
export interface Dropouts {
  readonly dropouts: readonly { readonly port: string; readonly p: number; readonly shape: Shape }[]
}

/** Fresh dropout masks of a stage; `from` counts those of it that came before. */
export function masks(
  stage: Dropouts,
  place: { readonly micro: number; readonly stage: number; readonly from: number },
  sizes: DimValues,
  fillMask: FillMask,
  memory: StackMemory,
): Feeds {
  const feeds: Record<string, HostTensor> = {}
  stage.dropouts.forEach(({ port, p, shape: dims }, i) => {
    const shape = dims.map((dim) => dimValue(dim, sizes))
    const data = memory.bytes(elements(shape))
    fillMask(data, p, { micro: place.micro, stage: place.stage, index: place.from + i })
    feeds[port] = { dtype: 'u8', shape, data }
  })
  return feeds
}
