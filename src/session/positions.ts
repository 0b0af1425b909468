import type { PositionKind } from '../engine/positions.ts'
import type { DecoderConfig, LayerKind } from '../model/decoder.ts'
import { lengthRegime, restartsWithLength, ropeTables } from '../model/rope.ts'

/** How each block sees positions, as the engine computes it. */
export function positionKinds({ layers }: Pick<DecoderConfig, 'layers'>): PositionKind[] {
  const kinds = new Map<LayerKind, PositionKind>()
  return layers.map((kind) => {
    const { rope, window } = kind
    const made = kinds.get(kind) ?? {
      window,
      rope: rope && {
        width: rope.channels / 2,
        tables: (positions, length) => ropeTables(rope, positions, length),
        regime: lengthRegime(rope),
        restarts: restartsWithLength(rope),
      },
    }
    kinds.set(kind, made)
    return made
  })
}
