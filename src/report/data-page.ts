import type { PreviewRow } from '../text/preview.ts'
import { html } from './html.ts'

/** Examples as the model sees them, as a page: what is learned is green, special tokens are framed, each token's id is its title. */
export function dataPage(title: string, rows: readonly PreviewRow[]): string {
  const examples = rows.map(({ row, place, tokens }) => {
    const learned = tokens.filter(({ label }) => label).length
    const spans = tokens.map(({ id, text, label, special }, t) => {
      const kind = [label ? 'label' : '', special ? 'special' : ''].filter((one) => one !== '').join(' ')
      return html`<span class="${kind}" title="token ${t + 1}, id ${id}${label ? ', learned' : ''}">${text}</span>`
    })
    return html`<section>
      <h2>example ${row}</h2>
      <p>${place}: ${tokens.length} tokens, ${learned} of them learned</p>
      <pre>${spans}</pre>
    </section> `
  })
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title}</title>
        <style>
          body {
            font:
              1rem/1.5 system-ui,
              sans-serif;
            max-width: 60rem;
            margin: 2rem auto;
            padding: 0 1rem;
          }
          pre {
            white-space: pre-wrap;
            overflow-wrap: anywhere;
          }
          span:hover {
            outline: 1px solid;
          }
          .label {
            background: light-dark(#c8f0cf, #14532d);
          }
          .special {
            border: 1px dotted;
            border-radius: 3px;
          }
        </style>
      </head>
      <body>
        <h1>${title}</h1>
        <p>Green is learned; a dotted frame is a special token.</p>
        ${examples}
      </body>
    </html> `.toString()
}
