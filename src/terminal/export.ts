import { duration, formatSize, number, plural } from '../util/format.ts'

/** What the command line shows of an export: see `ExportResult`. */
interface Exported {
  readonly output: string
  readonly to: string
  readonly dtype: string
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
  readonly notes: readonly string[]
  readonly checked: Checked | undefined
  readonly seconds: number
}

interface Checked {
  readonly tensors: number
  readonly texts?: number
  readonly logits?: {
    readonly texts: number
    readonly largestDifference: number
    readonly divergence: number
    readonly sameFirst: number
  }
}

/** What was written, what whoever uses it has to know, and what was found when it was read again. */
export function exportLines({ output, to, dtype, files, notes, checked, seconds }: Exported): string[] {
  const bytes = files.reduce((total, file) => total + file.bytes, 0)
  return [
    `saved ${output}  ${to}  ${dtype}  ${formatSize(bytes)}  (${duration(seconds)})`,
    ...notes.map((note) => `note: ${note}`),
    ...(checked === undefined ? [] : [`read again: ${found(checked).join('; ')}`]),
  ]
}

function found({ tensors, texts, logits }: Checked): string[] {
  return [
    `${plural(tensors, 'tensor')} as they were to be`,
    ...(texts === undefined ? [] : [`the same tokens of ${plural(texts, 'text')}`]),
    ...(logits === undefined
      ? []
      : [
          `logits differ by at most ${number(logits.largestDifference)} (divergence ${number(logits.divergence)} nats, ` +
            `the same first token after ${logits.sameFirst} of ${plural(logits.texts, 'text')})`,
        ]),
  ]
}
