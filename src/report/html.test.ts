import { expect, test } from 'vitest'
import { html, scriptJson, type Content } from './html.ts'

test('markup comes from templates alone, not from a value that looks like one', () => {
  const forged = JSON.parse('[{"html":"<b>"},{"#text":"<b>","length":0},[{"html":"<b>"}],"<b>",null,true]') as Content
  expect(html`<p>${forged}</p>`.toString()).not.toContain('<b>')
  expect(html`${html`<p>${['<', 1, undefined, html`<hr />`]}</p>`}`.toString()).toBe('<p>&lt;1<hr /></p>')
})

test('no text in JSON ends its script element', () => {
  const text = scriptJson({ a: '</script><!--' }).toString()
  expect(text).not.toContain('<')
  expect(JSON.parse(text)).toEqual({ a: '</script><!--' })
})
