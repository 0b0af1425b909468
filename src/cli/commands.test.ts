import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { commands } from '../commands/table.ts'
import * as api from '../index.ts'
import { LowrankError } from '../util/errors.ts'
import { lowrank } from './harness.fixture.ts'
import { commandHelp } from './help.ts'

// What every command promises, whoever adds it.

const read = (path: string): string => readFileSync(new URL(`../commands/${path}`, import.meta.url), 'utf8')

test('the commands are in the order of their files in index.ts', async () => {
  const files = [...read('index.ts').matchAll(/^export \* from '\.\/(.+)'$/gm)].map(([, file = '']) => read(file))
  const names = files.map((text) => /define(?:Command|Stream|Interactive)\(\{\s*name: '(.+)'/.exec(text)?.[1])
  expect(commands.map(({ name }) => name)).toEqual(names)
  expect(new Set(names).size).toBe(names.length)
  expect(names.length).toBeGreaterThanOrEqual(8)
  const { stdout } = await lowrank(['--help'])
  const listed = commands.map(({ name, summary }) => stdout.indexOf(`  ${name} `) < stdout.indexOf(`  ${summary}\n`))
  expect(listed).toEqual(commands.map(() => true))
})

describe.each(commands.map((command) => [command.name, command] as const))('%s', (name, command) => {
  const words = Array.from({ length: command.argument?.least ?? 0 }, (_, i) => `word${i}`)
  const options = command.options.list()

  test('says what it is', () => {
    expect(name).toMatch(/^[a-z]+( [a-z]+)?$/)
    expect(command.summary).toMatch(/^[A-Z].*[^.]$/)
    expect(command.usage).toMatch(/\[flags\]$/)
    if (command.argument !== undefined) expect(command.usage).toContain(command.argument.name)
    expect(command.notes).toMatch(/^[A-Z].*\.$/s)
  })

  test('has a help page of 100 columns, with every option described', async () => {
    const page = commandHelp(command, options, 100)
    for (const line of page.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100)
    for (const { flag, help, group } of options) {
      expect(page).toContain(`--${flag}`)
      expect(help, flag).toMatch(/^\S.*[^.]$/s)
      expect(group, flag).not.toBe('Other')
    }
    expect(new Set(options.map(({ flag }) => flag)).size).toBe(options.length)
    const { code, stdout, stderr } = await lowrank(['help', ...name.split(' ')])
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: page, stderr: '' })
  })

  // Nothing is near a name of two letters.
  const near = options.find(({ flag }) => flag.length > 3)

  test('refuses an option that it does not have, with what was meant', async () => {
    expect(near).toBeDefined()
    const { code, stdout, stderr } = await lowrank([...name.split(' '), ...words, `--${near?.flag}x`, '1'])
    expect(stderr).toContain(`--${near?.flag}x: unknown option. Did you mean "--${near?.flag}"?`)
    expect(stderr).toContain(`hint: lowrank ${name} --help lists all options.`)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  })

  test('has a function in the API, which refuses the same', async () => {
    expect(Object.values<unknown>(api)).toContain(command.api)
    const call = command.api as (...args: readonly unknown[]) => Promise<unknown> | AsyncGenerator
    const argument = command.argument === undefined ? [] : [command.argument.list ? words : 'word']
    const refused = async (...args: readonly unknown[]): Promise<unknown> => {
      const answer = call(...args)
      return 'next' in answer ? answer.next() : answer
    }
    const error = await refused(...argument, { [`${near?.key}x`]: 1 }).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(LowrankError)
    expect(error).toMatchObject({
      code: 'config',
      message: expect.stringContaining(`${near?.key}x: unknown option. Did you mean "${near?.key}"?`),
    })
    if (argument.length > 0) await expect(refused(7)).rejects.toBeInstanceOf(LowrankError)
  })
})
