import { f32ToF16 } from '../../util/dtype.ts'

const largest = (values: Float32Array): number => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
const half = (value: number): number => f32ToF16(Float32Array.of(value))[0] ?? 0

/** Numbers as blocks of Q6_K: 256 of them with a scale in f16, groups of 16 with a step, six bits each. */
export function quantizeQ6(data: Float32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array((data.length / 256) * 210)
  for (let block = 0; block < data.length / 256; block++) {
    const [at, values] = [210 * block, data.subarray(256 * block, 256 * block + 256)]
    const d = largest(values) / 31 / 127
    new DataView(bytes.buffer).setUint16(at + 208, half(d), true)
    for (let group = 0; group < 16; group++) {
      const step = d === 0 ? 0 : Math.max(1, Math.round(largest(values.subarray(16 * group, 16 * group + 16)) / 31 / d))
      bytes[at + 192 + group] = step
      for (let j = 0; j < 16; j++) {
        const i = 16 * group + j
        const code = 32 + (step === 0 ? 0 : Math.max(-32, Math.min(31, Math.round((values[i] ?? 0) / (d * step)))))
        const [part, quarter, place] = [i >> 7, (i >> 5) & 3, i & 31]
        bytes[at + 64 * part + 32 * (quarter & 1) + place]! |= (code & 15) << (4 * (quarter >> 1))
        bytes[at + 128 + 32 * part + place]! |= (code >> 4) << (2 * quarter)
      }
    }
  }
  return bytes
}
