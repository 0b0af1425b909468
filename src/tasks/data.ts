import { writeFileAtomic } from '../formats/atomic.ts'
import { dataPage } from '../report/data-page.ts'
import { readDecoderConfig } from '../model/config.ts'
import { lengthRegimes } from '../model/rope.ts'
import { findData, fromHub } from '../hub/resolve.ts'
import { readTokens, type ReadOptions } from '../session/read-tokens.ts'
import { type Dataset, placeOf } from '../text/dataset.ts'
import { type DataReport, reportOf } from '../text/data-report.ts'
import { withOverlap } from '../text/overlap.ts'
import type { PrefixOptions } from '../text/prefixes.ts'
import { type PreviewRow, previewTokens } from '../text/preview.ts'
import { prefixSavings } from '../text/savings.ts'
import { chooseTemplate } from '../text/template/choose.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { LowrankError } from '../util/errors.ts'
import { refuseExisting } from './data-files.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'

/** How data is looked at: as a run with these options reads it. */
export interface DataTaskConfig extends ReadOptions {
  readonly data: string
  readonly model: string
}

export interface InspectConfig extends DataTaskConfig {
  /** Validation data, compared with the data. */
  readonly valid?: string | undefined
  /** The steps for which is said what shared prefixes save, where both are given. */
  readonly perDeviceTrainBatchSize?: number
  readonly gradientAccumulationSteps?: number
}

/**
 * Reads data as a run does, and says what it is.
 *
 * @throws LowrankError `data`: nothing in it can be used; `model`; `config`; `cancelled`.
 */
export async function* runInspect(given: InspectConfig, context: TaskContext): AsyncGenerator<StatusEvent, DataReport> {
  yield status(`reading ${given.data}`)
  const opened = yield* openData(given, context)
  try {
    const dataset = yield* opened.read(given.data)
    const valid = given.valid === undefined ? undefined : yield* opened.read(given.valid)
    const report = reportOf(given.data, valid === undefined ? dataset : withOverlap(dataset, valid), opened.template)
    const { perDeviceTrainBatchSize: batchSize, gradientAccumulationSteps: accumulation } = given
    if (batchSize === undefined || accumulation === undefined) return report
    const order = { examples: dataset.examples, seed: 0, batchSize, accumulation, regimeOf: opened.regimeOf }
    return { ...report, prefixes: prefixSavings(order) }
  } finally {
    opened.tokenizer.close()
  }
}

export interface CheckConfig extends InspectConfig {
  /** Findings that are left out. */
  readonly allow: readonly string[]
}

/** `runInspect` without the findings that are allowed. */
export async function* runCheck(given: CheckConfig, context: TaskContext): AsyncGenerator<StatusEvent, DataReport> {
  const report = yield* runInspect(given, context)
  return { ...report, findings: report.findings.filter(({ kind }) => !given.allow.includes(kind)) }
}

export interface PreviewConfig extends DataTaskConfig {
  /** The first example to show, from 1, and how many. */
  readonly row: number
  readonly rows: number
  /** A page to write. */
  readonly html?: string | undefined
}

/** The very tokens of some examples, with what of them is learned. */
export async function* runPreview(
  given: PreviewConfig,
  context: TaskContext,
): AsyncGenerator<StatusEvent, readonly PreviewRow[]> {
  yield status(`reading ${given.data}`)
  const opened = yield* openData(given, context)
  try {
    const { examples, summary } = yield* opened.read(given.data)
    const { row, rows, html } = given
    if (html !== undefined) await refuseExisting('html', html)
    if (row > examples.length) {
      throw new LowrankError('config', `row ${row}: ${given.data} has ${examples.length} examples that can be used`)
    }
    const shown: PreviewRow[] = []
    for (const [i, example] of examples.slice(row - 1, row - 1 + rows).entries()) {
      const tokens = await previewTokens(example, opened.tokenizer)
      shown.push({ row: row + i, place: placeOf(example, summary), tokens })
    }
    if (html !== undefined) await writeFileAtomic(html, dataPage(given.data, shown))
    return shown
  } finally {
    opened.tokenizer.close()
  }
}

interface OpenedData {
  /** See `PrefixOptions`. */
  readonly regimeOf: PrefixOptions['regimeOf']
  readonly tokenizer: Tokenizer
  readonly template: string | undefined
  readonly read: (spec: string) => AsyncGenerator<StatusEvent, Dataset>
}

async function* openData(given: DataTaskConfig, context: TaskContext): AsyncGenerator<StatusEvent, OpenedData> {
  const { config } = yield* fromHub(given, context)
  const decoder = await readDecoderConfig(config.model)
  const { vocabSize } = decoder
  const { cancelled } = context
  const tokenizer = await loadTokenizer(config.model, { cancelled })
  try {
    const template = await chooseTemplate(config, config, tokenizer)
    return {
      tokenizer,
      regimeOf: lengthRegimes(decoder),
      template: template?.origin,
      read: async function* (spec) {
        const sources = yield* findData(spec, context)
        return yield* reported((report) =>
          readTokens({
            skipBadLines: true,
            ...config,
            sources,
            tokenizer,
            template,
            vocabSize,
            cancelled,
            report,
          }),
        )
      },
    }
  } catch (error) {
    tokenizer.close()
    throw error
  }
}
