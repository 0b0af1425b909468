import { z } from 'zod'
import { readJsonObject } from '../formats/json.ts'
import { LowrankError } from '../util/errors.ts'
import { ownPrices } from './price-list.ts'

const priceFileSchema = z.object({
  /** The day of the prices. */
  date: z.iso.date(),
  source: z.string().min(1),
  currency: z.string().min(1).max(8),
  machines: z
    .array(
      z.object({
        name: z.string().min(1).max(100),
        perHour: z.number().positive(),
        memoryGB: z.number().positive(),
        gpuMemoryGB: z.number().positive().optional(),
      }),
    )
    .min(1)
    .max(1000),
})

/** Prices of machines, by the hour. */
export type Prices = Readonly<z.output<typeof priceFileSchema>>

/**
 * The prices in a file, by default those of the package.
 *
 * @throws LowrankError `config`: the file, and the place in it that is not as expected.
 */
export async function readPrices(path: string | undefined): Promise<Prices> {
  if (path === undefined) return ownPrices
  const json = await readJsonObject(path, { code: 'config', maxBytes: 2 ** 20 })
  const found = priceFileSchema.safeParse(json)
  if (found.success) return found.data
  const [issue] = found.error.issues
  throw new LowrankError(
    'config',
    `${path}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a list of prices'}`,
    {
      hint: 'Expected are date, source, currency, and machines, each with name, perHour and memoryGB (gpuMemoryGB too, where it has a GPU), as in examples/prices.json.',
    },
  )
}

/** The cheapest machine that has so much memory, or memory of a GPU. */
export function cheapest(
  { machines }: Prices,
  bytes: number,
  kind: 'ram' | 'gpu',
): Prices['machines'][number] | undefined {
  const fitting = machines.filter(({ memoryGB, gpuMemoryGB }) =>
    kind === 'gpu'
      ? gpuMemoryGB !== undefined && gpuMemoryGB * 1e9 >= bytes
      : gpuMemoryGB === undefined && memoryGB * 1e9 >= bytes,
  )
  return fitting.toSorted((a, b) => a.perHour - b.perHour)[0]
}
