import { type Dataset, placeOf } from './dataset.ts'
import { Findings, findingKinds } from './findings.ts'

/**
 * Notes the examples of one dataset that are in another too, among the findings of the one: a validation loss says nothing of texts that were
 * learned.
 */
export function withOverlap(dataset: Dataset, other: Dataset): Dataset {
  const known = new Set(other.fingerprints)
  const found = new Findings()
  for (const [i, fingerprint] of dataset.fingerprints.entries()) {
    if (!known.has(fingerprint)) continue
    found.add('overlap', placeOf(dataset.examples.at(i)!, dataset.summary))
  }
  const order = Object.keys(findingKinds)
  const findings = [...dataset.summary.findings, ...found.list()].toSorted(
    (a, b) => order.indexOf(a.kind) - order.indexOf(b.kind),
  )
  return { ...dataset, summary: { ...dataset.summary, findings } }
}
