import { f32ToF16 } from '../../util/dtype.ts'

/** Numbers as blocks of Q8_0: 32 of them with a scale in f16, a signed byte each. */
export function quantizeQ8(data: Float32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array((data.length / 32) * 34)
  for (let block = 0; block < data.length / 32; block++) {
    const values = data.subarray(32 * block, 32 * block + 32)
    const d = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127
    new DataView(bytes.buffer).setUint16(34 * block, f32ToF16(Float32Array.of(d))[0] ?? 0, true)
    const codes = new Int8Array(bytes.buffer, 34 * block + 2, 32)
    values.forEach((value, i) => (codes[i] = d === 0 ? 0 : Math.round(value / d)))
  }
  return bytes
}
