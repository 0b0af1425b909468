import { findData } from '../hub/resolve.ts'
import type { DataFiles } from '../session/data.ts'
import type { StatusEvent, TaskContext } from '../util/task.ts'

/**
 * The files that a run names as its data, those of the hub downloaded.
 *
 * @throws LowrankError `data`, `io`, `cancelled`: see `findData`.
 */
export async function* findDataFiles(
  { train, valid }: { readonly train: string; readonly valid?: string | undefined },
  context: TaskContext,
): AsyncGenerator<StatusEvent, DataFiles> {
  return {
    train: yield* findData(train, context),
    valid: valid === undefined ? undefined : yield* findData(valid, context),
  }
}
