/*
 * Finds passages by what they mean to the model that answers.
 */

/**
 * What finds the passages that are nearest to a question, the nearest first.
 *
 * Embeddings of a decoder all point in about the same direction: a few channels are far larger than the others, and alike in every text.
 * So the mean is taken off each channel, and the channel divided by its standard deviation, before angles are compared: of passages by the
 * mean of passages, of questions by that of other questions.
 *
 * @template T
 * @param {readonly T[]} passages
 * @param {readonly Float32Array[]} vectors of the passages
 * @param {readonly Float32Array[]} examples vectors of questions, for their mean
 * @returns {(question: Float32Array) => T[]}
 */
export function nearest(passages, vectors, examples) {
  const [ofPassages, ofQuestions] = [mean(vectors), mean(examples)]
  const centred = [...vectors.map((one) => minus(one, ofPassages)), ...examples.map((one) => minus(one, ofQuestions))]
  const spread = mean(centred.map((one) => one.map((value) => value ** 2))).map(Math.sqrt)
  const direction = (/** @type {Float32Array} */ centredVector) => {
    const scaled = centredVector.map((value, i) => (at(spread, i) === 0 ? 0 : value / at(spread, i)))
    const length = Math.hypot(...scaled)
    return scaled.map((value) => value / length)
  }
  const known = vectors.map((one) => direction(minus(one, ofPassages)))
  return (question) => {
    const asked = direction(minus(question, ofQuestions))
    const cosines = known.map((one) => one.reduce((sum, value, i) => sum + value * at(asked, i), 0))
    const order = [...passages.keys()].sort((a, b) => at(cosines, b) - at(cosines, a))
    return order.map((i) => /** @type {T} */ (passages[i]))
  }
}

/** @type {(values: ArrayLike<number>, i: number) => number} */
const at = (values, i) => values[i] ?? 0

/** @type {(vectors: readonly Float32Array[]) => Float32Array} */
function mean(vectors) {
  return (vectors[0] ?? new Float32Array()).map(
    (_, i) => vectors.reduce((sum, one) => sum + at(one, i), 0) / vectors.length,
  )
}

/** @type {(a: Float32Array, b: Float32Array) => Float32Array} */
function minus(a, b) {
  return a.map((value, i) => value - at(b, i))
}
