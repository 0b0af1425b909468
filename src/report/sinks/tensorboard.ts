import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { mkdirSync, openSync, closeSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { TrainEvent } from '../../train/events.ts'
import { messageOf } from '../../util/errors.ts'
import { maskedCrc32c } from './crc32c.ts'
import type { ErrorEvent, Sink } from './sink.ts'

interface EventFileOptions {
  /** Folder that receives the file; made where it is missing. */
  readonly folder: string
  /** The configuration, shown by TensorBoard's text tab under `args`, as transformers does. */
  readonly config: unknown
  /** The first step that a resumed run computes: what earlier files of the folder say of it and later steps is hidden. */
  readonly resumedAt?: number | undefined
}

/**
 * A run as TensorBoard reads it: one file of scalars, tagged as by transformers' `TensorBoardCallback` (`train/loss`,
 * `eval/loss`, …). The first failure ends the writing.
 */
export class EventFile implements Sink {
  #file: number | undefined
  #warnings: string[] = []
  #tokensPerSecond = 0
  #memory = 0

  constructor({ folder, config, resumedAt }: EventFileOptions) {
    this.#guarded(folder, () => {
      mkdirSync(folder, { recursive: true })
      // Ten digits of seconds: files sort by the time they were begun, which is the order TensorBoard reads them in.
      const seconds = String(Math.floor(Date.now() / 1000)).padStart(10, '0')
      const name = `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${filesOpened++}`
      this.#file = openSync(join(folder, name), 'ax')
      this.#write(encodeEvent({ time: Date.now(), version: 'brain.Event:2' }))
      if (resumedAt !== undefined) this.#write(encodeEvent({ time: Date.now(), step: resumedAt, start: true }))
      else this.#write(encodeEvent({ time: Date.now(), text: { tag: 'args', value: markdownJson(config) } }))
    })
  }

  event(event: TrainEvent | ErrorEvent): void {
    if (event.type === 'step') {
      this.#tokensPerSecond = event.tokensPerSecond
      this.#memory = event.memory
    }
    const scalars = scalarsOf(event)
    if (scalars === undefined) return
    const { step, values } = scalars
    const all = event.type === 'log' ? { ...values, ...this.#machine() } : values
    this.#guarded('the event file', () => this.#write(encodeEvent({ time: Date.now(), step, scalars: all })))
  }

  /** Each event is written as it comes. */
  async flush(): Promise<void> {}

  warnings(): string[] {
    return this.#warnings.splice(0)
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file)
    this.#file = undefined
  }

  #machine(): Readonly<Record<string, number>> {
    return { 'train/tokens_per_second': this.#tokensPerSecond, 'train/memory_gb': this.#memory / 1e9 }
  }

  #write(event: Uint8Array): void {
    if (this.#file !== undefined) writeSync(this.#file, frame(event))
  }

  #guarded(what: string, action: () => void): void {
    try {
      action()
    } catch (error) {
      this.#warnings.push(`no more events of this run are written for TensorBoard: ${what}: ${messageOf(error)}`)
      this.close()
    }
  }
}

let filesOpened = 0

/** The scalars of an event, tagged as transformers does; undefined where it has none. */
function scalarsOf(
  event: TrainEvent | ErrorEvent,
): { readonly step: number; readonly values: Readonly<Record<string, number>> } | undefined {
  switch (event.type) {
    case 'log': {
      const { step, loss, gradNorm, learningRate, epoch } = event
      const values = { loss, grad_norm: gradNorm, learning_rate: learningRate, epoch }
      return { step, values: prefixed('train', values) }
    }
    case 'eval': {
      const { step, loss, perplexity, tokenAccuracy, seconds, examples, metrics } = event
      const values = {
        loss,
        perplexity,
        mean_token_accuracy: tokenAccuracy,
        ...metrics,
        runtime: seconds,
        samples_per_second: examples / seconds,
      }
      return { step, values: prefixed('eval', values) }
    }
    case 'done': {
      const { steps, trainLoss, seconds } = event
      return { step: steps, values: prefixed('train', { train_loss: trainLoss, train_runtime: seconds }) }
    }
    default:
      return undefined
  }
}

function prefixed(prefix: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${prefix}/${name}`, value]))
}

/** The text tab reads Markdown: a block of code keeps the line breaks. */
function markdownJson(value: unknown): string {
  return JSON.stringify(value, null, 2).replaceAll(/^/gm, '    ')
}

/** A TFRecord: length, its checksum, the bytes, their checksum; little endian (tensorflow/core/lib/io/record_writer.h). */
function frame(data: Uint8Array): Uint8Array {
  const record = Buffer.alloc(data.length + 16)
  record.writeBigUInt64LE(BigInt(data.length), 0)
  record.writeUInt32LE(maskedCrc32c(record.subarray(0, 8)), 8)
  record.set(data, 12)
  record.writeUInt32LE(maskedCrc32c(data), 12 + data.length)
  return record
}

interface EventMessage {
  /** Milliseconds since 1970. */
  readonly time: number
  readonly step?: number
  readonly version?: string
  readonly scalars?: Readonly<Record<string, number>>
  readonly text?: { readonly tag: string; readonly value: string }
  /** Whether the session (re)starts at this step. */
  readonly start?: boolean
}

/** A message `Event` of tensorflow/core/util/event.proto, with the few fields that are used here, by their numbers there. */
function encodeEvent({ time, step = 0, version, scalars, text, start }: EventMessage): Uint8Array {
  const event = new BinaryWriter().tag(1, WireType.Bit64).double(time / 1000)
  if (step !== 0) event.tag(2, WireType.Varint).int64(step)
  if (version !== undefined) event.tag(3, WireType.LengthDelimited).string(version)
  if (scalars !== undefined || text !== undefined) {
    event.tag(5, WireType.LengthDelimited).fork()
    for (const [tag, value] of Object.entries(scalars ?? {})) {
      event.tag(1, WireType.LengthDelimited).fork()
      event.tag(1, WireType.LengthDelimited).string(tag).tag(2, WireType.Bit32).float(value)
      event.join()
    }
    if (text !== undefined) encodeText(event, text)
    event.join()
  }
  // SessionLog.status = START
  if (start === true) event.tag(7, WireType.LengthDelimited).fork().tag(1, WireType.Varint).int32(1).join()
  return event.finish()
}

/** A `Summary.Value` for the text tab: a tensor of one string, marked as the plugin's. */
function encodeText(summary: BinaryWriter, { tag, value }: { readonly tag: string; readonly value: string }): void {
  const DT_STRING = 7
  summary.tag(1, WireType.LengthDelimited).fork()
  summary.tag(1, WireType.LengthDelimited).string(`${tag}/text_summary`)
  summary.tag(8, WireType.LengthDelimited).fork().tag(1, WireType.Varint).int32(DT_STRING)
  summary
    .tag(2, WireType.LengthDelimited)
    .fork()
    .tag(2, WireType.LengthDelimited)
    .fork()
    .tag(1, WireType.Varint)
    .int64(1)
    .join()
    .join()
  summary.tag(8, WireType.LengthDelimited).string(value).join()
  summary
    .tag(9, WireType.LengthDelimited)
    .fork()
    .tag(1, WireType.LengthDelimited)
    .fork()
    .tag(1, WireType.LengthDelimited)
    .string('text')
    .join()
    .join()
  summary.join()
}
