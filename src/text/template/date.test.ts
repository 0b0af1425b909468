import { expect, test } from 'vitest'
import { dayOf, strftime } from './date.ts'
import { ChatTemplate, TemplateProblem } from './template.ts'

test('the day is that of this machine', () => {
  expect(dayOf(new Date(2024, 0, 5, 23, 59))).toBe('2024-01-05')
  expect(dayOf(new Date(2024, 11, 31))).toBe('2024-12-31')
})

test('it is written as Python writes it', () => {
  expect(strftime('2024-07-26', '%d %b %Y')).toBe('26 Jul 2024')
  expect(strftime('2024-02-29', '%A, %B %d %y (%a %m) %H:%M:%S %I %p 100%%')).toBe(
    'Thursday, February 29 24 (Thu 02) 00:00:00 12 AM 100%',
  )
  expect(() => strftime('2024-02-29', '%Q')).toThrow('"%Q" is not known')
  expect(() => strftime('2024-02-29', 'a%')).toThrow('"%" is not known')
})

test('a template writes the day that it is given, whatever day it is', () => {
  const source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{{ messages[0].content }}"
  const written = (day: string): string =>
    new ChatTemplate(source, 'T', {}, day).render({ messages: [{ role: 'user', content: '!' }] }).text
  expect(written('2024-07-26')).toBe('26 Jul 2024!')
  expect(written('2001-01-01')).toBe('01 Jan 2001!')
  expect(new ChatTemplate(source, 'T').writesDate).toBe(true)
  expect(new ChatTemplate('{{ messages[0].content }}', 'T').writesDate).toBe(false)
  const unknown = new ChatTemplate("{{ strftime_now('%Q') }}", 'T')
  expect(() => unknown.render({ messages: [] })).toThrow(TemplateProblem)
})
