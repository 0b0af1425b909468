import { z } from 'zod'
import { inspected } from '../config/groups/data.ts'
import { training } from '../config/groups/training.ts'
import { optionSet } from '../config/index.ts'
import type { DataReport, LengthBin } from '../text/data-report.ts'
import type { PrefixSavings } from '../text/savings.ts'
import { reportLines } from '../terminal/data.ts'
import type { Finding, FindingKind } from '../text/findings.ts'
import { word } from './argument.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { DataReport, Finding, FindingKind, LengthBin, PrefixSavings }

const { perDeviceTrainBatchSize, gradientAccumulationSteps } = training
const options = optionSet(
  z.strictObject({
    ...inspected,
    perDeviceTrainBatchSize: perDeviceTrainBatchSize.meta({ group: 'Data' }),
    gradientAccumulationSteps: gradientAccumulationSteps.meta({ group: 'Data' }),
  }),
)

/** Options of `inspectData` as a user passes them. */
export type InspectDataInput = z.input<typeof options.schema>

/** What data is, as a run reads it: its shape, how many tokens and labels, how long, and what is worth looking at. */
export const inspectData: (data: string, input: InspectDataInput, call?: StatusOptions) => Promise<DataReport> =
  defineCommand({
    name: 'data inspect',
    summary: 'Say what data is: its shape, tokens and labels, lengths, and what is suspicious in it',
    usage: 'FILES --model MODEL [flags]',
    notes: 'Nothing is trained, and nothing is written. FILES is what --train takes (docs/data.md).',
    argument: word('data', 'FILES'),
    options,
    load: async () => (await import('../tasks/data.ts')).runInspect,
    text: (report, { width }) => reportLines(report, width),
  })
