import { expect, test } from 'vitest'
import { namedTemplates } from '../../text/template/named.ts'
import { knownTemplates, recognise } from './templates.ts'

const roles = { bos_token: '<s>', eos_token: '</s>' }

test.each(Object.keys(knownTemplates))('%s is recognised by what it writes', (name) => {
  const found = recognise(knownTemplates[name]!.jinja, roles)
  expect(found).toMatchObject({ name, system: undefined })
  expect(found?.go).not.toContain('EOS')
  // BOS is put before a text by the tokenizer: the template has it in Jinja alone.
  expect(found?.go).not.toContain('<s>')
  expect(found?.writesBos).toBe(knownTemplates[name]!.jinja.includes('bos_token'))
})

test('every named template of Lowrank is among them', () => {
  expect(Object.keys(knownTemplates)).toEqual(expect.arrayContaining(Object.keys(namedTemplates)))
})

/** As SmolLM 2 has it: other words for the same, and a system prompt where none is given. */
const smollm = `{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are "SmolLM".<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}`

test('a system prompt of its own is told apart', () => {
  expect(recognise(smollm, roles)).toMatchObject({ name: 'chatml', system: 'You are "SmolLM".', writesBos: false })
  // Where BOS is what every turn begins with, it is no BOS of the text.
  expect(recognise(smollm, { bos_token: '<|im_start|>', eos_token: '<|im_end|>' })).toMatchObject({
    name: 'chatml',
    writesBos: false,
  })
})

test('a template that knows of no system', () => {
  const strict = `{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}${namedTemplates['gemma']}`
  expect(recognise(strict, roles)).toMatchObject({ name: 'gemma' })
})

test.each([
  ['another end', smollm.replaceAll('<|im_end|>', '<|end|>')],
  ['a date', `{{ '2024' }}${smollm}`],
  [
    'one that writes nothing of the system',
    namedTemplates['chatml']!.replace('in messages', "in messages if message['role'] != 'system'"),
  ],
  ['one that fails', "{{ raise_exception('never') }}"],
])('not recognised: %s', (_, source) => {
  expect(recognise(source, roles)).toBeUndefined()
})

test('tokens that would be a program are refused', () => {
  expect(recognise(namedTemplates['zephyr']!, { ...roles, eos_token: '{{ .Secret }}' })).toBeUndefined()
})
