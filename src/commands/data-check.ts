import { z } from 'zod'
import { option } from '../config/fields.ts'
import { inspected } from '../config/groups/data.ts'
import { optionSet } from '../config/index.ts'
import { reportLines } from '../terminal/data.ts'
import type { DataReport } from '../text/data-report.ts'
import { findingKinds, type FindingKind } from '../text/findings.ts'
import { LowrankError } from '../util/errors.ts'
import { word } from './argument.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

const kinds = Object.keys(findingKinds) as [FindingKind, ...FindingKind[]]
const options = optionSet(
  z.strictObject({
    ...inspected,
    allow: option(z.array(z.enum(kinds)).default([]), {
      group: 'Data',
      description: 'Findings that are no reason to fail',
      placeholder: 'KIND,...',
      accepts: `some of ${kinds.join(', ')}`,
    }),
  }),
)

/** Options of `checkData` as a user passes them. */
export type CheckDataInput = z.input<typeof options.schema>

/** The same as `inspectData`; on the command line, findings and malformed records are a failure (exit code 1). */
export const checkData: (data: string, input: CheckDataInput, call?: StatusOptions) => Promise<DataReport> =
  defineCommand({
    name: 'data check',
    summary: 'Fail where data has malformed records or suspicious ones: for a build',
    usage: 'FILES --model MODEL [--allow KIND,...] [flags]',
    notes: `Kinds of findings: ${kinds.join(', ')}.`,
    argument: word('data', 'FILES'),
    options: options,
    load: async () => (await import('../tasks/data.ts')).runCheck,
    text: (report, { width }) => reportLines(report, width),
    failure: ({ findings, malformed, data }) => {
      const found = findings.map(({ kind, count }) => `${kind} (${count})`)
      if (malformed > 0) found.unshift(`malformed (${malformed})`)
      return found.length === 0 ? undefined : new LowrankError('findings', `${data}: ${found.join(', ')}`)
    },
  })
