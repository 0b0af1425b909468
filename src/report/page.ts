import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Chart } from './charts.ts'
import { html, Html, scriptJson, type Content } from './html.ts'

/**
 * A page that needs no other file and no network: uPlot, the script that draws with it, and the style lie in it. The content
 * security policy allows these and nothing else, so that no text of a run can become a script.
 */
export function page({
  title,
  charts,
  body,
}: {
  readonly title: string
  readonly charts: readonly Chart[]
  /** What is around the charts; `charts` is the place of these. */
  readonly body: (charts: Html) => Content
}): string {
  const { script, style, uplot } = assets()
  const policy = [
    "default-src 'none'",
    `script-src ${[uplot.script, script].map(hashSource).join(' ')}`,
    `style-src ${[uplot.style, style].map(hashSource).join(' ')}`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ')
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${policy}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="robots" content="noindex" />
        <title>${title}</title>
        ${element('style', uplot.style)}${element('style', style)}
      </head>
      <body>
        <main>${body(chartPlaces(charts))}</main>
        <script type="application/json" id="charts">
          ${scriptJson(charts)}
        </script>
        ${element('script', uplot.script)}${element('script', script)}
      </body>
    </html> `.toString()
}

function chartPlaces(charts: readonly Chart[]): Html {
  if (charts.length === 0) return html`<p class="quiet">No step was done.</p>`
  // Two beside each other; the last of an odd number has the row for itself.
  const alone = charts.filter(({ wide }) => !wide).length % 2 === 1 ? charts.findLast(({ wide }) => !wide) : undefined
  const places = charts.map((chart) => {
    const { id, title, unit, wide, summary } = chart
    return html`<figure class="chart${wide ? ' wide' : chart === alone ? ' whole' : ''}">
      <figcaption><b>${title}</b> <span>${unit}</span></figcaption>
      <div class="plot" data-chart="${id}" role="img" aria-label="${title}. ${summary}"></div>
    </figure> `
  })
  return html`<noscript><p class="quiet">The curves need JavaScript.</p></noscript>
    <div class="charts">${places}</div>
    <p class="quiet hint">Drag over a plot to zoom, double-click to see all of it; click a name to hide its curve.</p>`
}

interface Assets {
  readonly script: string
  readonly style: string
  readonly uplot: { readonly script: string; readonly style: string }
}

let loaded: Assets | undefined

function assets(): Assets {
  return (loaded ??= load())
}

function load(): Assets {
  const own = (name: string): string => readFileSync(new URL(`./browser/${name}`, import.meta.url), 'utf8')
  const { resolve } = createRequire(import.meta.url)
  const uplot = (name: string): string => readFileSync(resolve(`uplot/${name}`), 'utf8')
  // The licence of uPlot goes with every copy of it.
  const license = `/*! uPlot\n${uplot('LICENSE').trim()}\n*/\n`
  return {
    script: own('draw.js'),
    style: own('report.css'),
    uplot: {
      script: own('language.js') + license + uplot('dist/uPlot.iife.min.js'),
      style: license + uplot('dist/uPlot.min.css'),
    },
  }
}

/** To the letter, since the policy names its hash. */
function element(name: 'script' | 'style', text: string): Html {
  return new Html(`<${name}>${text}</${name}>`)
}

function hashSource(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`
}
