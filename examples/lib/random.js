import { createHash } from 'node:crypto'

/**
 * Numbers from 0 up to 1 that a seed decides, the same on every machine.
 *
 * @typedef {() => number} Random
 */

/**
 * @param {string} seed
 * @returns {Random}
 */
export function seededRandom(seed) {
  let count = 0
  return () => createHash('sha256').update(`${seed} ${count++}`).digest().readUInt32BE() / 2 ** 32
}

/**
 * @template T
 * @param {Random} random
 * @param {readonly T[]} items
 * @returns {T}
 */
export function pick(random, items) {
  const item = items[Math.floor(random() * items.length)]
  if (item === undefined) throw new Error('nothing to pick from')
  return item
}

/**
 * Fisher and Yates.
 *
 * @template T
 * @param {Random} random
 * @param {readonly T[]} items
 * @returns {T[]}
 */
export function shuffled(random, items) {
  const all = [...items]
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const [a, b] = /** @type {[T, T]} */ ([all[i], all[j]])
    ;[all[i], all[j]] = [b, a]
  }
  return all
}

/**
 * Fills the slots of a text, `{name}`.
 *
 * @param {string} text
 * @param {Readonly<Record<string, string>>} slots
 */
export function fill(text, slots) {
  return text.replaceAll(/\{(\w+)\}/g, (_, name) => {
    const value = slots[name]
    if (value === undefined) throw new Error(`no {${name}}`)
    return value
  })
}
