import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { components } from './components.ts'

const page = readFileSync(new URL('../../../docs/support.md', import.meta.url), 'utf8')

test.each(Object.entries(components))(
  'docs/support.md lists the components of %s and their options',
  (section, types) => {
    const row = page.split('\n').find((line) => line.startsWith(`| \`${section}\``)) ?? ''
    const listed = Object.entries(types).map(([type, options]) => {
      const names = Object.keys(options).map((name) => `\`${name}\``)
      return `\`${type}\`${names.length > 0 ? ` (${names.join(', ')})` : ''}`
    })
    expect(row.split('|')[2]?.trim()).toBe(listed.join('; '))
  },
)
