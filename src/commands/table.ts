import './index.ts'
import { definedCommands, type Command } from './define.ts'

export type { Command }

/** The commands of `index.ts`, in its order: that in which their files are run. */
export const commands: readonly Command[] = definedCommands()
