const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}

/** A size as people write it, in decimal (`8GB`, `1.5 TB`) or binary units (`24GiB`), in any case of letters. */
export const sizePattern = /^\s*(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]i?b|b)\s*$/i

/** Bytes of a size, rounded down; undefined where the text is none, or stands for no byte or for more than 2^53 of them. */
export function parseSize(text: string): number | undefined {
  const [, digits = '', unit = ''] = sizePattern.exec(text) ?? []
  const bytes = Math.floor(Number(digits) * (UNITS[unit.toLowerCase()] ?? NaN))
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined
}
