import { execFile, execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * The Python to compare with: $LOWRANK_PYTHON, or python3 of the path, where it has torch, transformers and peft. Undefined
 * with a line on standard error where there is none.
 */
export async function findPython(): Promise<string | undefined> {
  const python = process.env['LOWRANK_PYTHON'] ?? 'python3'
  try {
    await run(python, ['-c', 'import torch, transformers, peft, safetensors'])
    return python
  } catch {
    console.error(
      `skipped what needs Python: ${python} cannot import torch, transformers, peft and safetensors ` +
        '(pip install torch==2.13.0 transformers peft accelerate, or set LOWRANK_PYTHON)',
    )
    return undefined
  }
}

/** Whether it can quantize too; a line on standard error where it cannot. */
export function hasBitsAndBytes(python: string): boolean {
  try {
    execFileSync(python, ['-c', 'import bitsandbytes, accelerate'], { stdio: 'ignore' })
    return true
  } catch {
    console.error(`skipped: ${python} cannot import bitsandbytes and accelerate`)
    return false
  }
}

/** Runs a script that prints JSON. It is ended after `timeout` milliseconds, by default never. */
export async function runPython<T>(python: string, script: string, args: readonly string[], timeout = 0): Promise<T> {
  const { stdout } = await run(python, [script, ...args], { maxBuffer: 1 << 28, timeout })
  return lastJson<T>(stdout)
}

/** The same, but undefined where it has printed nothing after so many seconds. */
export async function runPythonFor<T>(
  seconds: number,
  python: string,
  script: string,
  args: readonly string[],
): Promise<T | undefined> {
  try {
    return await runPython<T>(python, script, args, 1000 * seconds)
  } catch (error) {
    if (error instanceof Error && 'killed' in error && error.killed === true) return undefined
    throw error
  }
}

/** Runs one of the compiled programs here in a process of its own, so that its peak memory is its own. */
export async function runNode<T>(script: string, args: readonly string[]): Promise<T> {
  const { stdout } = await run(process.execPath, [script, ...args], { maxBuffer: 1 << 28 })
  return lastJson<T>(stdout)
}

function lastJson<T>(stdout: string): T {
  const line = stdout.trim().split('\n').at(-1) ?? ''
  return JSON.parse(line) as T
}

/** The model folder given as --model. */
export function modelFolder(args: readonly string[]): string {
  const folder = args[args.indexOf('--model') + 1]
  if (!args.includes('--model') || folder === undefined || !existsSync(folder)) {
    console.error('give the folder of a Llama model: --model DIR')
    process.exit(2)
  }
  return folder
}
