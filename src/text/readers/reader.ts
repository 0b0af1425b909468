import { inputName } from '../../formats/chunks.ts'

/** Where a record is, from 1: in a line of a text, or as one of the rows of what has no lines. */
export interface Place {
  readonly path: string
  readonly unit: 'line' | 'row'
  readonly number: number
}

/** `data.jsonl:12`; `data.parquet, row 12`. */
export function placeText({ path, unit, number }: Place): string {
  return unit === 'line' ? `${inputName(path)}:${number}` : `${inputName(path)}, row ${number}`
}

/** A record of a file: its value, or why it has none. */
export type RecordEntry =
  { readonly place: Place; readonly value: unknown } | { readonly place: Place; readonly error: string }

/** What there is to read. */
export interface Input {
  /** As the user named it. */
  readonly path: string
  /** Its bytes from the beginning, unpacked. */
  readonly chunks: AsyncIterable<Uint8Array>
  /** Chooses, among the columns of a table that has them apart from one another, those that are read; undefined: all. */
  readonly wanted?: ((columns: readonly string[]) => readonly string[] | undefined) | undefined
  /** Is told of bytes of the file that are read elsewhere than from `chunks`. */
  readonly onBytes?: ((count: number) => void) | undefined
  /** How it is compressed, if it is. */
  readonly packed?: string | undefined
  /** Its beginning, as text. */
  readonly head: TextHead
}

/** The beginning of a text. */
export interface TextHead {
  /** Without a byte order mark and the blank space in front. */
  readonly text: string
  /** The first line of that. */
  readonly line: string
  /** Whether more than blank space follows that line. */
  readonly more: boolean
}
