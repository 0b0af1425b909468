import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { spawn, type ChildProcess } from 'node:child_process'
import type { Job } from '../../src/jobs/job.ts'
import { readJson, root } from './support.ts'

/** Jobs of an experiment, as their files say. */
export function jobsOf(experiment: string): Job[] {
  const jobs = join(experiment, 'jobs')
  const names = existsSync(jobs) ? readdirSync(jobs).filter((name) => /^[^.].*\.json$/.test(name)) : []
  return names.map((name) => readJson(join(jobs, name)) as Job)
}

/** Numbers of the processes whose jobs are said to be running. */
export function runningJobs(experiment: string): number[] {
  return jobsOf(experiment).flatMap(({ state }) => (state.status === 'running' ? [state.pid] : []))
}

/** The processes whose command line names a folder. */
export function processesOf(name: string): number[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(join('/proc', pid, 'cmdline'), 'utf8').includes(name)
      } catch {
        return false
      }
    })
    .map(Number)
}

export async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(20)
}

/** Starts the real command line as the head of a group of processes, so that all of them can be killed at once. */
export function startGroup(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [join(root, 'dist/cli.js'), ...args], {
    cwd: root,
    detached: true,
    stdio: 'ignore',
  })
}
