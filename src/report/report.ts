import { join } from 'node:path'
import { writeFileAtomic } from '../formats/atomic.ts'
import { count } from '../util/format.ts'
import { chartsOf } from './charts.ts'
import { configFacts, dataRows, figureFacts, optionText, planFacts, type Fact } from '../runs/facts.ts'
import { reportName } from '../runs/record.ts'
import { html, type Content, type Html } from './html.ts'
import { page } from './page.ts'
import { readRun, type Run, type Sample } from '../runs/read.ts'

/** What a page shows of the longest lists and texts; all of it is in metrics.jsonl. */
const MOST = { samples: 50, notices: 100, characters: 4000 }

/**
 * Writes the report of a run from its `run.json` and `metrics.jsonl` alone; returns the path.
 *
 * @throws LowrankError `data` where there is no run, `io` where the file cannot be written.
 */
export async function writeReport(folder: string, output = join(folder, reportName)): Promise<string> {
  await writeFileAtomic(output, reportPage(await readRun(folder)))
  return output
}

/** The report of a run, as HTML. */
function reportPage(run: Run): string {
  const { name, status, config, startedAt, notices, samples, ended } = run
  const { chosen, others } = configFacts(config)
  const origin = [...Object.entries(run.versions), ...Object.entries(run.hashes)].map(([key, value]): Fact => [
    key,
    optionText(value),
  ])
  return page({
    title: `${name}: training report`,
    charts: chartsOf(run),
    body: (charts) =>
      html`<header>
          <h1>${name} <span class="status ${status}">${status}</span></h1>
          <p class="quiet">
            ${[config['method'], config['model']].filter((value) => typeof value === 'string').join(' on ')}, started
            ${dateText(startedAt)}
          </p>
          ${ended === undefined ? undefined : html`<p class="ended">${ended}</p>`}
        </header>
        <dl class="figures">
          ${figureFacts(run).map(
            ({ name, value, note }) =>
              html`<div>
                <dt>${name}</dt>
                <dd>${value}${note === undefined ? undefined : html` <span>${note}</span>`}</dd>
              </div> `,
          )}
        </dl>
        ${noticeList(notices)}
        <section>
          <h2>Curves <span>over optimizer steps</span></h2>
          ${charts}
        </section>
        ${sampleSection(samples)}
        <section>
          <h2>Configuration</h2>
          ${factTable(chosen)}
          <details>
            <summary>As by default (${others.length})</summary>
            ${factTable(others)}
          </details>
        </section>
        ${dataSection(run)}
        <section>
          <h2>Plan</h2>
          ${factTable(planFacts(run))}
          <details>
            <summary>Versions, and SHA-256 of what went in</summary>
            ${factTable(origin)}
          </details>
        </section>
        <footer class="quiet">
          Made by Lowrank ${optionText(run.versions['lowrank'] ?? '')} from run.json and metrics.jsonl. Curves are drawn
          by uPlot (MIT).
        </footer>`,
  })
}

/** `2026-11-24 11:05 UTC`. */
function dateText(iso: string): string {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(iso) ? `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC` : 'at an unknown time'
}

function factTable(facts: readonly Fact[]): Html {
  return html`<table class="facts">
    ${facts.map(
      ([name, value]) =>
        html`<tr>
          <th scope="row">${name}</th>
          <td>${value}</td>
        </tr> `,
    )}
  </table>`
}

function noticeList(notices: Run['notices']): Content {
  if (notices.length === 0) return undefined
  const shown = notices.slice(0, MOST.notices)
  return html`<section>
    <h2>To look at</h2>
    <ul class="notices">
      ${shown.map(({ kind, step, text }) => html`<li class="${kind}"><b>${kind}${step === undefined ? '' : ` at step ${count(step)}`}</b> ${cut(text)}</li> `)}
    </ul>
    ${omitted(shown.length, notices.length)}
  </section>`
}

function sampleSection(samples: readonly Sample[]): Content {
  if (samples.length === 0) return undefined
  const shown = samples.slice(0, MOST.samples)
  return html`<section>
    <h2>Completions</h2>
    ${shown.map(
      ({ prompt, expected, before, after }) =>
        html`<article class="sample">
          <div class="prompt">
            <h3>prompt</h3>
            ${verbatim(prompt)}
          </div>
          <div>
            <h3>expected</h3>
            ${verbatim(expected)}
          </div>
          ${[['before', before] as const, ['after', after] as const].map(
            ([when, completion]) =>
              html`<div class="${when}">
                <h3>
                  ${when}
                  training${completion?.trim() === expected.trim() ? html` <span class="same">as expected</span>` : undefined}
                </h3>
                ${completion === undefined ? html`<p class="quiet">none</p>` : verbatim(completion)}
              </div> `,
          )}
        </article> `,
    )}${omitted(shown.length, samples.length)}
  </section>`
}

function dataSection(run: Run): Content {
  const rows = dataRows(run)
  if (rows.length === 0) return undefined
  return html`<section>
    <h2>Data</h2>
    <div class="scroll">
      <table class="columns">
        <tr>
          ${['', 'examples', 'tokens', 'of them labels', 'cut', 'dropped', 'lines skipped', 'file'].map((title) => html`<th scope="col">${title}</th>`)}
        </tr>
        ${rows.map(
          (row) =>
            html`<tr>
              ${row.map((cell) => html`<td>${cell}</td>`)}
            </tr> `,
        )}
      </table>
    </div>
  </section>`
}

function omitted(shown: number, all: number): Content {
  return shown === all
    ? undefined
    : html`<p class="quiet">${count(shown)} of ${count(all)}; metrics.jsonl has all of them.</p>`
}

/** A line break at the start of `pre` is not shown, so that one is added. */
function verbatim(text: string): Html {
  return html`<pre>${`\n${cut(text)}`}</pre>`
}

function cut(text: string): string {
  return text.length > MOST.characters ? `${text.slice(0, MOST.characters)} …` : text
}
