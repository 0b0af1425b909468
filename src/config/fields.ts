import { z } from 'zod'
import { parseSize, sizePattern } from './size.ts'

/** What the help page and the error messages need beyond the schema itself. */
export interface OptionMeta {
  /** The heading it stands under in the help page; options of a group stand together. */
  readonly group: string
  readonly description: string
  /** What a flag's value is called in the help page, where the type does not say it. */
  readonly placeholder?: string
  /** What is accepted, where the derived wording would mislead. */
  readonly accepts?: string
  /** What an unset option means, where there is no default. */
  readonly unset?: string
  /** Whether its value stays out of messages. */
  readonly secret?: true
  /** Whether its flag may be given several times, each a value of a list, in which a comma is a comma. */
  readonly repeated?: true
  /**
   * Whether the option of a run may change when it goes on: `free`, since it decides what is reported and kept, not what is trained;
   * `evaluations`, likewise unless the weights that are kept, or the end of the run, depend on evaluations. Of paths the content counts,
   * of threads the number, of memory the choice that was made within it. An option that does not say so must stay.
   */
  readonly resume?: 'free' | 'evaluations'
}

/** A schema with what the help page and the messages say of it. */
export function option<T extends z.ZodType>(schema: T, meta: OptionMeta): T {
  return schema.meta({ ...meta })
}

/** The same option, where leaving it out means something else. */
export function unset<T extends z.ZodType>(schema: T, meaning: string): T {
  return schema.meta({ ...schema.meta(), unset: meaning })
}

/** Larger counts are typing errors; the bound also keeps every index exact in 32 bits. */
export const COUNT_MAX = 2 ** 31 - 1
export const count = z.int().min(1).max(COUNT_MAX)
/** No system takes a zero byte in a path. */
export const path = z
  .string()
  .min(1)
  .max(4096)
  .regex(/^[^\0]*$/)
  .meta({ path: true })
export const name = z.string().min(1).max(256)
export const positive = z.number().positive().max(1e6)
export const beta = z.number().min(0).lt(1)

/** A share between 0 and 1, or a percentage as a text; between 0 and 1 when parsed. */
export const share = z
  .union([z.number().gt(0).lt(1), z.string().regex(/^\d{1,2}(?:\.\d+)?%$/)])
  .transform((value) => (typeof value === 'number' ? value : Number(value.slice(0, -1)) / 100))
  .refine((value) => value > 0)

/** A size in bytes, or as a text with its unit; bytes when parsed. */
export const size = z.union([z.int().min(1), z.string().regex(sizePattern)]).transform((value, context) => {
  const bytes = typeof value === 'number' ? value : parseSize(value)
  if (bytes !== undefined) return bytes
  context.addIssue('not a size')
  return z.NEVER
})
export const sizeMeta = { placeholder: 'SIZE', accepts: 'a size such as 8GB, 900MB or 24GiB, or a number of bytes' }

const regularExpression = z
  .string()
  .min(1)
  .max(2000)
  .refine((source) => {
    try {
      new RegExp(source)
      return true
    } catch {
      return false
    }
  })
export const modules = z.union([z.array(name).min(1), regularExpression])
