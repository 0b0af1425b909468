import type { QuantizationOptions } from './groups/quantization.ts'
import type { Rules } from './parse.ts'

/** How the linear layers of a base model are quantized. */
export type Quantization =
  | {
      readonly kind: '4bit'
      readonly quantType: 'nf4' | 'fp4'
      /** Whether the scales of the blocks are quantized too. */
      readonly doubleQuant: boolean
      /** Weights that share a scale. */
      readonly blockSize: number
    }
  | { readonly kind: '8bit' }

/** How the base model is to be quantized, by a resolved configuration; undefined: it is used as it is stored. */
export function quantizationOf(config: Partial<QuantizationOptions>): Quantization | undefined {
  if (config.loadIn8bit) return { kind: '8bit' }
  if (!config.loadIn4bit) return undefined
  return {
    kind: '4bit',
    quantType: config.bnb4bitQuantType ?? 'fp4',
    doubleQuant: config.bnb4bitUseDoubleQuant ?? false,
    blockSize: config.bnb4bitBlockSize ?? 64,
  }
}

/** `4-bit nf4 with double quantization in blocks of 64`. */
export function quantizationText(quantization: Quantization | undefined): string {
  if (quantization === undefined) return 'not quantized'
  if (quantization.kind === '8bit') return '8-bit'
  const { quantType, doubleQuant, blockSize } = quantization
  return `4-bit ${quantType} with${doubleQuant ? '' : 'out'} double quantization in blocks of ${blockSize}`
}

type Given = Partial<QuantizationOptions> & { readonly method?: 'lora' | 'qlora' | 'full' | undefined }
type NameOf = (key: keyof QuantizationOptions | 'method') => string

/** The options that describe a base in 4 bits. */
export const fourBitKeys = ['bnb4bitQuantType', 'bnb4bitUseDoubleQuant', 'bnb4bitBlockSize'] as const

/**
 * Decides what the options of quantization leave open. `qlora`: whether 4-bit NormalFloat with double quantization is what
 * is meant where nothing is said, instead of the defaults of `BitsAndBytesConfig` (fp4, no double quantization).
 */
export function fillQuantization(config: Given, { qlora }: { readonly qlora: boolean }): void {
  config.loadIn4bit ??= qlora && config.loadIn8bit !== true
  if (!config.loadIn4bit) return
  config.bnb4bitQuantType ??= qlora ? 'nf4' : 'fp4'
  config.bnb4bitUseDoubleQuant ??= qlora
  config.bnb4bitBlockSize ??= 64
}

/** Options of quantization that contradict each other or the method; `qlora` as in `fillQuantization`. */
export function checkQuantization(config: Given, { qlora }: { readonly qlora: boolean }, nameOf: NameOf): string[] {
  const { loadIn4bit, loadIn8bit } = config
  if (loadIn4bit === true && loadIn8bit === true) {
    return [`${nameOf('loadIn4bit')}: cannot be combined with ${nameOf('loadIn8bit')}; choose one`]
  }
  if (config.method === 'full') {
    return (['loadIn4bit', 'loadIn8bit'] as const)
      .filter((key) => config[key] === true)
      .map(
        (key) => `${nameOf(key)}: ${nameOf('method')} full trains every weight, and a quantized one cannot be trained`,
      )
  }
  if (qlora && loadIn4bit === false && loadIn8bit !== true) {
    const asked = config.method === 'qlora' ? `${nameOf('method')} qlora` : 'this'
    return [
      `${nameOf('loadIn4bit')}: found false, but ${asked} needs a base in 4 bits, or in 8 with ${nameOf('loadIn8bit')}`,
    ]
  }
  return []
}

/** Options of a 4-bit base where there is none, which an evaluation or `quantize` refuses: its figures would be of another model. */
function checkFourBit(config: Given, { qlora }: { readonly qlora: boolean }, nameOf: NameOf): string[] {
  const { loadIn4bit, loadIn8bit } = config
  if (loadIn4bit === true || (qlora && loadIn8bit !== true)) return []
  const why = loadIn8bit === true ? nameOf('loadIn8bit') : `${nameOf('loadIn4bit')} not set`
  return fourBitKeys
    .filter((key) => config[key] !== undefined)
    .map((key) => `${nameOf(key)}: describes a base in 4 bits, and has no meaning with ${why}`)
}

interface Defaults {
  readonly qlora: boolean
  /** Whether `loadIn4bit` may stay unset. */
  readonly open: boolean
}

/** Rules where nothing but the quantization depends on each other. */
function rulesOf(read: (config: Given & { readonly adapter?: string | undefined }) => Defaults): Rules<Given> {
  return {
    check: (config, nameOf) => {
      const defaults = read(config)
      return [...checkQuantization(config, defaults, nameOf), ...checkFourBit(config, defaults, nameOf)]
    },
    complete: (config) => {
      const defaults = read(config)
      if (!defaults.open || config.loadIn4bit !== undefined) fillQuantization(config, defaults)
    },
  }
}

/** Of `heldBase`: where an adapter is used, and nothing is said of its base, the record beside it decides. */
export const heldRules = rulesOf(({ method, adapter, loadIn8bit }) => ({
  qlora: method === 'qlora',
  open: adapter !== undefined && method === undefined && loadIn8bit !== true,
}))

/** The same where adapters are merged; into the original weights means that none are quantized. */
export const mergeRules: Rules<Given & { readonly into?: 'trained' | 'original' }> = (() => {
  const rules = rulesOf(({ method, loadIn8bit }) => ({
    qlora: method === 'qlora',
    open: method === undefined && loadIn8bit !== true,
  }))
  return {
    ...rules,
    check: (config, nameOf) => {
      const asked = config.loadIn4bit === true ? 'loadIn4bit' : config.loadIn8bit === true ? 'loadIn8bit' : undefined
      const key = asked ?? (config.method === 'qlora' ? 'method' : undefined)
      if (config.into !== 'original' || key === undefined) return rules.check(config, nameOf)
      return [`${nameOf('into')}: original means the weights as the model has them, which contradicts ${nameOf(key)}`]
    },
  }
})()

/** Where a model is to be quantized: to 4-bit NormalFloat with double quantization, unless something else is said. */
export const quantizedRules = rulesOf(() => ({ qlora: true, open: false }))
