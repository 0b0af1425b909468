/*
 * Packed weights to f32, and floats to 4 bits, in AssemblyScript: WebAssembly with vectors of 128 bits. `npm run generate:kernels` makes
 * src/storage/kernels/bytes.ts of it; src/storage/kernels/kernels.ts lays out the memory and calls these functions.
 *
 * 16 codes at a time become f32 and are multiplied by the scale of their group. Products of a scale and a code are exact in f32, so that a
 * number is rounded once, where a minimum is taken from it: bit for bit what the references of llama.cpp and bitsandbytes make.
 */

/**
 * 4 bits of bitsandbytes: table[code] * scale, with a scale for every `blockBytes` bytes, and the first of two codes in the high bits. Of the
 * 16 floats of the table the lowest bytes come first, then all second bytes, and so on.
 */
export function bnb4(table: usize, codes: usize, scales: usize, to: usize, blocks: i32, blockBytes: i32): void {
  for (let block = 0; block < blocks; block++, scales += 4) {
    const scale = v128.load32_splat(scales)
    for (const end = codes + blockBytes; codes < end; codes += 16, to += 128) {
      const bytes = v128.load(codes)
      const first = high(bytes)
      const second = low(bytes)
      const left = i8x16.shuffle(first, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
      const right = i8x16.shuffle(first, second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
      putLooked(to, table, left, scale)
      putLooked(to + 64, table, right, scale)
    }
  }
}

/** table[code] * scale, 16 floats. */
function putLooked(to: usize, table: usize, codes: v128, scale: v128): void {
  const byte0 = i8x16.swizzle(v128.load(table), codes)
  const byte1 = i8x16.swizzle(v128.load(table, 16), codes)
  const byte2 = i8x16.swizzle(v128.load(table, 32), codes)
  const byte3 = i8x16.swizzle(v128.load(table, 48), codes)
  const lows0 = i8x16.shuffle(byte0, byte1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
  const lows1 = i8x16.shuffle(byte0, byte1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
  const highs0 = i8x16.shuffle(byte2, byte3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
  const highs1 = i8x16.shuffle(byte2, byte3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
  v128.store(to, f32x4.mul(i16x8.shuffle(lows0, highs0, 0, 8, 1, 9, 2, 10, 3, 11), scale))
  v128.store(to, f32x4.mul(i16x8.shuffle(lows0, highs0, 4, 12, 5, 13, 6, 14, 7, 15), scale), 16)
  v128.store(to, f32x4.mul(i16x8.shuffle(lows1, highs1, 0, 8, 1, 9, 2, 10, 3, 11), scale), 32)
  v128.store(to, f32x4.mul(i16x8.shuffle(lows1, highs1, 4, 12, 5, 13, 6, 14, 7, 15), scale), 48)
}

/** The largest magnitude of each block. It is that of bit patterns: infinities and NaN lie above all numbers. */
export function maxima(values: usize, to: usize, blocks: i32, blockBytes: i32): void {
  const magnitude = i32x4.splat(0x7fffffff)
  for (let block = 0; block < blocks; block++, to += 4) {
    let most = i32x4.splat(0)
    for (const end = values + blockBytes; values < end; values += 16) {
      most = i32x4.max_s(most, v128.and(v128.load(values), magnitude))
    }
    most = i32x4.max_s(most, i32x4.shuffle(most, most, 2, 3, 0, 1))
    most = i32x4.max_s(most, i32x4.shuffle(most, most, 1, 0, 3, 2))
    v128.store32_lane(to, most, 0)
  }
}

/**
 * The other way: the code of value * factor, with a factor for every `blockSize` values, of those whose borders (15 floats, ascending) and
 * codes (16 bytes, in the order of what they stand for) these are. A value on a border belongs below.
 */
export function packBnb4(
  borders: usize,
  order: usize,
  values: usize,
  factors: usize,
  to: usize,
  blocks: i32,
  blockSize: i32,
): void {
  const codes = v128.load(order)
  for (let block = 0; block < blocks; block++, factors += 4) {
    const factor = v128.load32_splat(factors)
    for (const end = values + 4 * blockSize; values < end; values += 128, to += 16) {
      const left = i8x16.swizzle(codes, ranks(values, factor, borders))
      const right = i8x16.swizzle(codes, ranks(values + 64, factor, borders))
      const even = i8x16.shuffle(left, right, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
      const odd = i8x16.shuffle(left, right, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
      v128.store(to, v128.or(i8x16.shl(even, 4), odd))
    }
  }
}

/** How many borders lie below each of 16 values. */
function ranks(values: usize, factor: v128, borders: usize): v128 {
  const value0 = f32x4.mul(v128.load(values), factor)
  const value1 = f32x4.mul(v128.load(values, 16), factor)
  const value2 = f32x4.mul(v128.load(values, 32), factor)
  const value3 = f32x4.mul(v128.load(values, 48), factor)
  let rank0 = i32x4.splat(0)
  let rank1 = i32x4.splat(0)
  let rank2 = i32x4.splat(0)
  let rank3 = i32x4.splat(0)
  for (let i = 0; i < 15; i++) {
    const border = v128.load32_splat(borders + 4 * i)
    // What is true is -1.
    rank0 = i32x4.sub(rank0, f32x4.gt(value0, border))
    rank1 = i32x4.sub(rank1, f32x4.gt(value1, border))
    rank2 = i32x4.sub(rank2, f32x4.gt(value2, border))
    rank3 = i32x4.sub(rank3, f32x4.gt(value3, border))
  }
  return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(rank0, rank1), i16x8.narrow_i32x4_s(rank2, rank3))
}

/** 8 bits of bitsandbytes: map[code] * scale + offset, with a scale for every `blockSize` codes. The last block may be shorter. */
export function bnb8(
  map: usize,
  codes: usize,
  scales: usize,
  to: usize,
  count: i32,
  blockSize: i32,
  offset: f32,
): void {
  for (const last = codes + count; codes < last; scales += 4) {
    const scale = load<f32>(scales)
    for (const end = min(codes + blockSize, last); codes < end; codes++, to += 4) {
      store<f32>(to, load<f32>(map + 4 * byte(codes)) * scale + offset)
    }
  }
}

/*
 * Blocks of 32 numbers of llama.cpp, with a scale d, and perhaps m, in f16. Codes of 4 bits are two to a byte: byte j has those of numbers j
 * and j + 16.
 */

/** d * (code - 8) */
export function q4_0(from: usize, to: usize, blocks: i32): void {
  const middle = i8x16.splat(8)
  for (let block = 0; block < blocks; block++, from += 18, to += 128) {
    const scale = f32x4.splat(half(from))
    const codes = v128.load(from, 2)
    put(to, i8x16.sub(low(codes), middle), scale)
    put(to + 64, i8x16.sub(high(codes), middle), scale)
  }
}

/** d * code + m */
export function q4_1(from: usize, to: usize, blocks: i32): void {
  for (let block = 0; block < blocks; block++, from += 20, to += 128) {
    const scale = f32x4.splat(half(from))
    const least = f32x4.splat(-half(from + 2))
    const codes = v128.load(from, 4)
    putLess(to, low(codes), scale, least)
    putLess(to + 64, high(codes), scale, least)
  }
}

/** d * (code - 16); the fifth bits of the codes are together, before the others. */
export function q5_0(from: usize, to: usize, blocks: i32): void {
  const middle = i8x16.splat(16)
  for (let block = 0; block < blocks; block++, from += 22, to += 128) {
    const scale = f32x4.splat(half(from))
    const codes = v128.load(from, 6)
    put(to, i8x16.sub(v128.or(low(codes), fifths(from + 2)), middle), scale)
    put(to + 64, i8x16.sub(v128.or(high(codes), fifths(from + 4)), middle), scale)
  }
}

/** d * code + m */
export function q5_1(from: usize, to: usize, blocks: i32): void {
  for (let block = 0; block < blocks; block++, from += 24, to += 128) {
    const scale = f32x4.splat(half(from))
    const least = f32x4.splat(-half(from + 2))
    const codes = v128.load(from, 8)
    putLess(to, v128.or(low(codes), fifths(from + 4)), scale, least)
    putLess(to + 64, v128.or(high(codes), fifths(from + 6)), scale, least)
  }
}

/** 16 in each of 16 bytes whose bit is set, of two bytes. */
function fifths(at: usize): v128 {
  const bytes = i8x16.swizzle(v128.load16_splat(at), v128(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1))
  const bits = v128(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128)
  return v128.and(i8x16.eq(v128.and(bytes, bits), bits), i8x16.splat(16))
}

/** d * code, a signed byte */
export function q8_0(from: usize, to: usize, blocks: i32): void {
  for (let block = 0; block < blocks; block++, from += 34, to += 128) {
    const scale = f32x4.splat(half(from))
    put(to, v128.load(from, 2), scale)
    put(to + 64, v128.load(from, 18), scale)
  }
}

/** d * table[code] */
export function iq4_nl(from: usize, to: usize, blocks: i32): void {
  const table = v128(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
  for (let block = 0; block < blocks; block++, from += 18, to += 128) {
    const scale = f32x4.splat(half(from))
    const codes = v128.load(from, 2)
    put(to, i8x16.swizzle(table, low(codes)), scale)
    put(to + 64, i8x16.swizzle(table, high(codes)), scale)
  }
}

/*
 * Blocks of 256 numbers of llama.cpp in groups of 16 or 32, each with a scale, and perhaps a minimum, of a few bits: steps of one in f16.
 */

/** 16 groups, 4 bits for scale and minimum each: d * scale * code - dmin * minimum. */
export function q2_k(from: usize, to: usize, blocks: i32): void {
  const lowest = i8x16.splat(3)
  for (let block = 0; block < blocks; block++, from += 84, to += 1024) {
    const d = half(from + 80)
    const dmin = half(from + 82)
    // 16 bytes hold the codes of every other group of half a block, two bits each.
    for (let part = 0; part < 4; part++) {
      const group = from + (part >> 1) * 8 + (part & 1)
      const out = to + (part >> 1) * 512 + (part & 1) * 64
      const codes = v128.load(from + 16 + 16 * part)
      for (let i = 0; i < 4; i++) {
        const both = byte(group + 2 * i)
        const scale = f32x4.splat(d * f32(both & 15))
        const least = f32x4.splat(dmin * f32(both >> 4))
        putLess(out + 128 * i, v128.and(i8x16.shr_u(codes, 2 * i), lowest), scale, least)
      }
    }
  }
}

/** 16 groups, 6 bits for a signed scale each: d * scale * code; a code is 4 less where its third bit, kept apart, is not set. */
export function q3_k(from: usize, to: usize, blocks: i32): void {
  const lowest = i8x16.splat(3)
  const four = i8x16.splat(4)
  for (let block = 0; block < blocks; block++, from += 110, to += 1024) {
    const d = half(from + 108)
    for (let part = 0; part < 4; part++) {
      const odd = part & 1
      const group = (part >> 1) * 8 + odd
      const out = to + (part >> 1) * 512 + odd * 64
      const codes = v128.load(from + 32 + 16 * part)
      const thirds = i8x16.shr_u(v128.load(from + 16 * odd), 4 * (part >> 1))
      for (let i = 0; i < 4; i++) {
        const third = v128.and(i8x16.shl(i8x16.shr_u(thirds, i), 2), four)
        const code = v128.or(v128.and(i8x16.shr_u(codes, 2 * i), lowest), third)
        put(out + 128 * i, i8x16.sub(code, four), f32x4.splat(d * signedScale(from + 96, group + 2 * i)))
      }
    }
  }
}

/** Scale `group` of the 12 bytes from `at` on that hold 16 of 6 bits: their low halves, then their high bits. */
function signedScale(at: usize, group: i32): f32 {
  const lowest = (byte(at + (group & 7)) >> (group < 8 ? 0 : 4)) & 15
  const highest = (byte(at + 8 + (group & 3)) >> ((group >> 2) * 2)) & 3
  return f32((lowest | (highest << 4)) - 32)
}

/** 8 groups, 6 bits for scale and minimum each: d * scale * code - dmin * minimum. */
export function q4_k(from: usize, to: usize, blocks: i32): void {
  for (let block = 0; block < blocks; block++, from += 144) {
    const d = half(from)
    const dmin = half(from + 2)
    // 32 bytes hold the codes of two groups.
    for (let group = 0; group < 8; group += 2, to += 256) {
      for (let side = 0; side < 2; side++) {
        const codes = v128.load(from + 16 + 16 * (group + side))
        putLess(to + 64 * side, low(codes), scaleOf(d, from + 4, group), leastOf(dmin, from + 4, group))
        putLess(to + 128 + 64 * side, high(codes), scaleOf(d, from + 4, group + 1), leastOf(dmin, from + 4, group + 1))
      }
    }
  }
}

/** As Q4_K, with the fifth bits of the codes before the others. */
export function q5_k(from: usize, to: usize, blocks: i32): void {
  const fifth = i8x16.splat(16)
  for (let block = 0; block < blocks; block++, from += 176) {
    const d = half(from)
    const dmin = half(from + 2)
    for (let group = 0; group < 8; group += 2, to += 256) {
      for (let side = 0; side < 2; side++) {
        const codes = v128.load(from + 48 + 16 * (group + side))
        // Bit `group` of each byte is that of a number of this group.
        const bits = i8x16.shr_u(v128.load(from + 16 + 16 * side), group)
        const first = v128.or(low(codes), v128.and(i8x16.shl(bits, 4), fifth))
        const second = v128.or(high(codes), v128.and(i8x16.shl(bits, 3), fifth))
        putLess(to + 64 * side, first, scaleOf(d, from + 4, group), leastOf(dmin, from + 4, group))
        putLess(to + 128 + 64 * side, second, scaleOf(d, from + 4, group + 1), leastOf(dmin, from + 4, group + 1))
      }
    }
  }
}

/** d times scale `group` of the 12 bytes from `at` on that hold 8 scales and 8 minima of 6 bits. */
function scaleOf(d: f32, at: usize, group: i32): v128 {
  if (group < 4) return f32x4.splat(d * f32(byte(at + group) & 63))
  return f32x4.splat(d * f32((byte(at + group + 4) & 15) | ((byte(at + group - 4) >> 6) << 4)))
}

/** dmin times minimum `group`. */
function leastOf(dmin: f32, at: usize, group: i32): v128 {
  if (group < 4) return f32x4.splat(dmin * f32(byte(at + group + 4) & 63))
  return f32x4.splat(dmin * f32((byte(at + group + 4) >> 4) | ((byte(at + group) >> 6) << 4)))
}

/** 16 groups, a signed byte for the scale of each: d * scale * (code - 32), a code of 4 bits and 2 that are kept apart. */
export function q6_k(from: usize, to: usize, blocks: i32): void {
  for (let block = 0; block < blocks; block++, from += 210, to += 1024) {
    const d = half(from + 208)
    for (let part = 0; part < 4; part++) {
      const side = part >> 1
      const odd = part & 1
      const first = v128.load(from + 64 * side + 16 * odd)
      const second = v128.load(from + 64 * side + 16 * odd + 32)
      const bits = v128.load(from + 128 + 32 * side + 16 * odd)
      const group = from + 192 + 8 * side + odd
      const out = to + 512 * side + 64 * odd
      putSixBits(out, low(first), i8x16.shl(bits, 4), d, group)
      putSixBits(out + 128, low(second), i8x16.shl(bits, 2), d, group + 2)
      putSixBits(out + 256, high(first), bits, d, group + 4)
      putSixBits(out + 384, high(second), i8x16.shr_u(bits, 2), d, group + 6)
    }
  }
}

/** d * scale * (code - 32), 16 floats: of a code 4 bits, and 2 at the fifth place. */
function putSixBits(to: usize, four: v128, two: v128, d: f32, group: usize): void {
  const code = v128.or(four, v128.and(two, i8x16.splat(48)))
  put(to, i8x16.sub(code, i8x16.splat(32)), f32x4.splat(d * f32(load<i8>(group))))
}

function low(bytes: v128): v128 {
  return v128.and(bytes, i8x16.splat(15))
}

function high(bytes: v128): v128 {
  return i8x16.shr_u(bytes, 4)
}

function byte(at: usize): i32 {
  return load<u8>(at)
}

/** A number in half precision. Shifted into place it is 2^112 times too small, and a subnormal one is too. */
function half(at: usize): f32 {
  const bits = i32(load<u16>(at))
  const size = (bits & 0x7fff) << 13
  const value =
    (bits & 0x7c00) == 0x7c00 ? reinterpret<f32>(size | 0x7f800000) : reinterpret<f32>(size) * f32(2.0 ** 112)
  return bits & 0x8000 ? -value : value
}

/** code * scale, 16 floats of signed bytes. */
function put(to: usize, codes: v128, scale: v128): void {
  const left = i16x8.extend_low_i8x16_s(codes)
  const right = i16x8.extend_high_i8x16_s(codes)
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(left)), scale))
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(left)), scale), 16)
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(right)), scale), 32)
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(right)), scale), 48)
}

/** code * scale - least, 16 floats. */
function putLess(to: usize, codes: v128, scale: v128, least: v128): void {
  const left = i16x8.extend_low_i8x16_s(codes)
  const right = i16x8.extend_high_i8x16_s(codes)
  v128.store(to, f32x4.sub(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(left)), scale), least))
  v128.store(to, f32x4.sub(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(left)), scale), least), 16)
  v128.store(to, f32x4.sub(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(right)), scale), least), 32)
  v128.store(to, f32x4.sub(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(right)), scale), least), 48)
}
