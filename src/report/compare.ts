import { basename, dirname, resolve } from 'node:path'
import { writeFileAtomic } from '../formats/atomic.ts'
import { LowrankError } from '../util/errors.ts'
import { overlaidCharts } from './charts.ts'
import { figureRows, optionText } from '../runs/facts.ts'
import { html, type Html } from './html.ts'
import { page } from './page.ts'
import { readRun, type Figures, type Run } from '../runs/read.ts'

/** What differs between runs, and what they came to. */
export interface Comparison {
  /** What the runs are called: their folders, as short as tells them apart. */
  readonly names: readonly string[]
  readonly runs: readonly { readonly folder: string; readonly status: Run['status']; readonly figures: Figures }[]
  /** Options that are not the same for all, and inputs (`train`, `model`) whose contents are not; a text a run. */
  readonly differences: readonly { readonly what: string; readonly values: readonly string[] }[]
}

/**
 * Compares runs; with `output`, writes a page that lays their curves over one another.
 *
 * @throws LowrankError `usage` for less than two runs, `data` where there is no run, `io` where the file cannot be written.
 */
export async function compareRuns(folders: readonly string[], output?: string): Promise<Comparison> {
  if (folders.length < 2) throw new LowrankError('usage', `${folders.length} run to compare; at least two are needed`)
  const runs: Run[] = []
  for (const folder of folders) runs.push(await readRun(folder))
  const names = shortNames(folders)
  const comparison = {
    names,
    runs: runs.map(({ folder, status, figures }) => ({ folder, status, figures })),
    differences: differencesOf(runs),
  }
  if (output !== undefined) await writeFileAtomic(output, comparisonPage(runs, comparison))
  return comparison
}

/** What an experiment has trained, as its page shows it. */
export interface ExperimentPage {
  readonly title: string
  readonly runs: readonly Run[]
  /** What the runs are called in the curves. */
  readonly names: readonly string[]
  /** Tables with a row for each thing compared; the first cell of a row is its title. */
  readonly tables: readonly {
    readonly title: string
    readonly titles: readonly string[]
    readonly rows: readonly (readonly string[])[]
  }[]
  readonly notes: readonly string[]
}

/** A page with tables, and the curves of runs laid over one another. */
export function experimentPage({ title, runs, names, tables, notes }: ExperimentPage): string {
  return page({
    title,
    charts: overlaidCharts(runs, names),
    body: (charts) =>
      html`<header><h1>${title}</h1></header>
        ${tables.map(
          (one) =>
            html`<section>
              <h2>${one.title}</h2>
              ${table(one.titles.slice(1), one.rows)}
            </section>`,
        )}
        <section>${notes.map((note) => html`<p class="quiet">${note}</p>`)}</section>
        <section>
          <h2>Curves <span>over optimizer steps</span></h2>
          ${charts}
        </section>
        <footer class="quiet">Made by Lowrank. Curves are drawn by uPlot (MIT).</footer>`,
  })
}

function comparisonPage(runs: readonly Run[], { names, differences }: Comparison): string {
  return page({
    title: `${names.join(', ')}: runs compared`,
    charts: overlaidCharts(runs, names),
    body: (charts) =>
      html`<header><h1>${names.join(' · ')}</h1></header>
        <section>
          <h2>Figures</h2>
          ${table(names, figureRows(runs))}
        </section>
        <section>
          <h2>Curves <span>over optimizer steps</span></h2>
          ${charts}
        </section>
        <section>
          <h2>What differs</h2>
          ${
            differences.length === 0
              ? html`<p class="quiet">No option and no input.</p>`
              : table(
                  names,
                  differences.map(({ what, values }) => [what, ...values]),
                )
          }
        </section>
        <footer class="quiet">Made by Lowrank. Curves are drawn by uPlot (MIT).</footer>`,
  })
}

function table(names: readonly string[], rows: readonly (readonly string[])[]): Html {
  return html`<div class="scroll">
    <table class="columns">
      <tr>
        <td></td>
        ${names.map((name) => html`<th scope="col">${name}</th>`)}
      </tr>
      ${rows.map(
        ([what, ...values]) =>
          html`<tr>
            <th scope="row">${what}</th>
            ${values.map((value) => html`<td>${value}</td>`)}
          </tr> `,
      )}
    </table>
  </div>`
}

/** `outputDir` differs always, and is what the runs are called by. */
const UNCOMPARED = new Set(['outputDir'])

function differencesOf(runs: readonly Run[]): Comparison['differences'] {
  const keys = new Set(runs.flatMap(({ config }) => Object.keys(config)))
  const options = [...keys]
    .filter((key) => !UNCOMPARED.has(key))
    .map((key) => ({ what: key, values: runs.map(({ config }) => optionText(config[key])) }))
  const inputs = new Set(runs.flatMap(({ hashes }) => Object.keys(hashes)))
  const contents = [...inputs].map((input) => ({
    what: `contents of ${input}`,
    values: runs.map(({ hashes }) => {
      const hash = hashes[input]
      return typeof hash === 'string' ? `sha256 ${hash.slice(0, 12)}…` : 'none'
    }),
  }))
  return [...options, ...contents].filter(({ values }) => new Set(values).size > 1)
}

/** The last parts of paths, as many as tell them apart. */
function shortNames(folders: readonly string[]): string[] {
  const paths = folders.map((folder) => resolve(folder))
  const bases = paths.map((path) => basename(path))
  if (new Set(bases).size === bases.length) return bases
  const two = paths.map((path, index) => `${basename(dirname(path))}/${bases[index]}`)
  return new Set(two).size === two.length ? two : [...folders]
}
