import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { EvalConfigInput, EvaluationResult } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { bleu } from '../../src/metrics/bleu.ts'
import { rouge } from '../../src/metrics/rouge.ts'
import { runGeneration } from '../../src/tasks/generate.ts'
import { shuffled, stream } from '../../src/util/random.ts'
import { directTasks } from '../tasks.ts'
import { all, collect, flags, last, lowrankHere, only, quickstart, temporaryFolder, writeData } from './support.ts'

// Metrics of answers: in an evaluation, and in those of a run.

const folder = temporaryFolder()
const { evaluate } = directTasks

/** A line of `output`. */
interface Line {
  readonly place: string
  readonly prompt: string
  readonly expected: string
  readonly completion?: string
  readonly predicted?: string
  readonly loss: number
  readonly labelTokens: number
  readonly metrics: Readonly<Record<string, number>>
  readonly labelScores?: Readonly<Record<string, number>>
}

function writeLines(name: string, records: readonly object[]): string {
  const path = join(folder, name)
  writeFileSync(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  return path
}

function readLines(path: string): Line[] {
  return readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line)
}

async function evaluated(
  name: string,
  config: Omit<EvalConfigInput, 'output'>,
): Promise<{ result: EvaluationResult; lines: Line[]; said: string[] }> {
  const output = join(folder, `${name}.results.jsonl`)
  const said: string[] = []
  const result = await evaluate({ ...config, output }, { onStatus: (message) => said.push(message) })
  return { result, lines: readLines(output), said }
}

const pairs = [
  { prompt: 'Ticket: my shoe is red.\nColour:', completion: ' red' },
  { prompt: 'Ticket: my book is green.\nColour:', completion: ' green' },
  { prompt: 'Ticket: my pan is as blue as the sky.\nColour:', completion: ' blue' },
  { prompt: 'Ticket: my book is red.\nColour:', completion: ' red' },
]

/** The same as conversations of several turns, of which the last answer is the label. */
const chats = pairs.map(({ prompt, completion }) => ({
  messages: [
    { role: 'system', content: 'You sort tickets.' },
    { role: 'user', content: 'Hello' },
    { role: 'assistant', content: 'What is it?' },
    { role: 'user', content: prompt },
    { role: 'assistant', content: completion.trim() },
  ],
}))

describe('answers that are generated', () => {
  const limit = 24
  let data: string
  let found: Awaited<ReturnType<typeof evaluated>>

  beforeAll(async () => {
    data = writeData(folder, { valid: 6 }).valid
    const metrics = ['exact-match', 'rouge', 'bleu', 'json'] as const
    found = await evaluated('generated', { model: quickstart, data, metrics: [...metrics], maxNewTokens: limit })
  })

  test('are those of generate, and are measured as the metrics say', async () => {
    const { result, lines } = found
    const events = await all(
      runGeneration(
        {
          model: quickstart,
          prompts: data,
          chat: false,
          maxNewTokens: limit,
          doSample: false,
          precision: 'exact',
        } as never,
        { cancelled: () => false },
      ),
    )
    const generated = events.flatMap((event) => (event.type === 'completion' ? [event.text] : []))
    const byPlace = new Map(lines.map((line) => [line.place, line]))
    const inOrder = generated.map((_, i) => byPlace.get(`${data}:${i + 1}`)!)
    expect(inOrder.map(({ completion }) => completion)).toEqual(generated)
    expect(new Set(generated).size).toBeGreaterThan(1)
    const mean = (of: (line: Line) => number): number => lines.reduce((sum, line) => sum + of(line), 0) / lines.length
    const { rouge1, rougeL, exactMatch, jsonValid, bleu: score } = result.metrics!
    expect(rouge1).toBeCloseTo(
      mean(({ expected, completion }) => rouge(expected, completion!).rouge1),
      10,
    )
    expect(rougeL).toBeGreaterThan(0)
    expect([exactMatch, jsonValid]).toEqual([0, 0])
    expect(score).toBeCloseTo(bleu(lines.map(({ expected, completion = '' }) => ({ expected, completion }))), 10)
    expect(result.confusion).toBeUndefined()
  })

  test('leave the loss as it is without them; of each example it is in the file, the worst first', async () => {
    const { result, lines } = found
    const { metrics: _, ...rest } = result
    expect(rest).toEqual(await evaluate({ model: quickstart, data }))
    const tokens = lines.reduce((total, line) => total + line.labelTokens, 0)
    expect(tokens).toBe(result.labelTokens)
    expect(lines.reduce((sum, line) => sum + line.loss * line.labelTokens, 0) / tokens).toBeCloseTo(result.loss, 6)
    // No answer is an exact match, so the loss decides.
    const losses = lines.map(({ loss }) => loss)
    expect(losses).toEqual(losses.toSorted((a, b) => b - a))
  })

  test('need a prompt; losses alone are listed of any data', async () => {
    const data = writeLines('plain-data.jsonl', [{ text: 'A text of which all is learned.' }, { text: 'Another one' }])
    const { result, lines } = await evaluated('plain', { model: quickstart, data })
    expect(result).toEqual(await evaluate({ model: quickstart, data }))
    expect(lines.map(({ expected }) => expected)).toEqual(['A text of which all is learned.', 'Another one'])
    expect(lines.map(({ metrics }) => metrics)).toEqual([{}, {}])
    expect(lines[0]!.loss).toBeGreaterThan(lines[1]!.loss)
    await expect(evaluate({ model: quickstart, data, metrics: ['json'] })).rejects.toThrow(/a text has no prompt/)
    await expect(evaluate({ model: quickstart, data, output: data })).rejects.toThrow(
      /is a file that the evaluation reads/,
    )
    const output = join(folder, 'missing', 'results.jsonl')
    await expect(evaluate({ model: quickstart, data, output })).rejects.toThrow(/there is no folder .*missing/)
  })

  test('are given to a function of the user; what is no function or no schema is refused', async () => {
    const model = quickstart
    const schema = join(folder, 'schema.json')
    writeFileSync(schema, '{"type": "nothing"}')
    const refused = evaluate({ model, data: writeLines('schema.jsonl', pairs), metrics: ['json'], schema })
    await expect(refused).rejects.toThrow(/schema\.json: no JSON Schema that can be used/)
    const script =
      "export default (prompt, completion, expected) => prompt.length + 1000 * completion.length + (expected === ' red' ? 0.5 : 0)"
    const metricModule = join(folder, 'own.mjs')
    writeFileSync(metricModule, script)
    const colours = writeLines('own.jsonl', pairs)
    const { result, lines } = await evaluated('own', { model, data: colours, metricModule, maxNewTokens: 4 })
    const wanted = lines.map(
      ({ prompt, completion, expected }) => prompt.length + 1000 * completion!.length + (expected === ' red' ? 0.5 : 0),
    )
    expect(lines.map(({ metrics }) => metrics['custom'])).toEqual(wanted)
    expect(wanted).toEqual(wanted.toSorted((a, b) => a - b))
    expect(result.metrics).toEqual({ custom: wanted.reduce((sum, value) => sum + value, 0) / wanted.length })
    writeFileSync(join(folder, 'bad.mjs'), 'export default () => NaN')
    await expect(
      evaluate({ model, data: colours, metricModule: join(folder, 'bad.mjs'), maxNewTokens: 1 }),
    ).rejects.toThrow(/metricModule: for .*own\.jsonl:1 it gave NaN, not a finite number/)
    await expect(evaluate({ model, data: colours, metricModule: join(folder, 'none.mjs') })).rejects.toThrow(
      /cannot be loaded/,
    )
  })
})

describe('labels by their likelihood', () => {
  const labels = ['red', 'green', 'blue']
  const scoresOf = async (name: string, config: Omit<EvalConfigInput, 'data'>, records: readonly object[]) =>
    evaluated(name, { ...config, data: writeLines(`${name}-data.jsonl`, records), metrics: ['accuracy', 'macro-f1'] })
  const answered = {
    pairs: (label: string) => pairs.map((pair) => ({ ...pair, completion: ` ${label}` })),
    chats: (label: string) =>
      chats.map(({ messages }) => ({ messages: [...messages.slice(0, -1), { role: 'assistant', content: label }] })),
  }

  test.each([
    ['pairs', {}, pairs],
    ['chats', { chatTemplate: 'zephyr', lastTurnOnly: true }, chats],
    [
      'chats',
      { chatTemplate: 'zephyr', lastTurnOnly: true, labels: ['blue', 'green', 'red', 'no colour at all'] },
      chats,
    ],
  ] as const)('are as likely as the losses of %s with them as answers say, %o', async (kind, options, records) => {
    const { result, lines } = await scoresOf(
      `likely-${kind}-${Object.keys(options).length}`,
      { model: quickstart, ...options } as never,
      records,
    )
    const names = 'labels' in options ? options.labels : labels
    for (const label of names) {
      const data = writeLines('answered.jsonl', answered[kind](label))
      const { lines: same } = await evaluated('answered', {
        model: quickstart,
        data,
        ...options,
        labels: undefined,
      } as never)
      const losses = new Map(same.map(({ place, loss, labelTokens }) => [place.split(':').at(-1), loss * labelTokens]))
      for (const { place, labelScores } of lines) {
        expect(-labelScores![label]!).toBeCloseTo(losses.get(place.split(':').at(-1))!, 3)
      }
    }
    for (const { labelScores = {}, predicted = '', expected, metrics } of lines) {
      expect(labelScores[predicted]).toBe(Math.max(...Object.values(labelScores)))
      expect(metrics['accuracy']).toBe(predicted === expected.trim() ? 1 : 0)
    }
    const right = lines.filter(({ metrics }) => metrics['accuracy'] === 1).length
    expect(result.metrics!['accuracy']).toBe(right / lines.length)
    expect(result.confusion!.labels).toEqual('labels' in options ? options.labels : labels.toSorted())
    expect(result.confusion!.counts.flat().reduce((sum, count) => sum + count, 0)).toBe(lines.length)
  })

  test('may be generated instead: what is no label is none', async () => {
    const data = writeLines('free.jsonl', pairs)
    const config = { model: quickstart, data, metrics: ['accuracy', 'macro-f1'] as ['accuracy', 'macro-f1'] }
    const { result, lines } = await evaluated('free', { ...config, classify: 'generate', maxNewTokens: 3 })
    expect(result.metrics).toEqual({ accuracy: 0, macroF1: 0 })
    expect(result.confusion!.other).toEqual([1, 1, 2])
    expect(lines.every(({ labelScores, completion }) => labelScores === undefined && completion !== undefined)).toBe(
      true,
    )
  })

  test('are refused where the data has others, and where there is no answer', async () => {
    const model = quickstart
    const data = writeLines('labels.jsonl', pairs)
    const metrics = ['accuracy'] as ['accuracy']
    await expect(evaluate({ model, data, metrics, labels: ['red', 'green'] })).rejects.toThrow(
      /labels\.jsonl:3: the answer "blue" is none of the labels red, green/,
    )
    const one = writeLines('one.jsonl', pairs.slice(0, 1))
    await expect(evaluate({ model, data: one, metrics })).rejects.toThrow(/has only one answer/)
    const texts = writeLines('texts.jsonl', [{ text: 'A text of which all is learned.' }])
    await expect(evaluate({ model, data: texts, metrics: ['rouge'] })).rejects.toThrow(
      /texts\.jsonl:1: a text has no prompt, so there is no answer to measure/,
    )
    await expect(evaluate({ model, data, metrics, trainOnInputs: true })).rejects.toThrow(
      /trainOnInputs: everything is learned/,
    )
    await expect(async () => evaluate({ model, data, metrics: ['rouge'], labels: ['a', 'b'] })).rejects.toThrow(
      /labels: needs metrics accuracy or macro-f1/,
    )
  })
})

describe('an adapter', () => {
  const train = (): string => writeLines('colours.jsonl', pairs)
  const output = join(folder, 'colours')
  const metrics = ['accuracy'] as ['accuracy']

  beforeAll(async () => {
    await collect({
      model: quickstart,
      train: train(),
      outputDir: output,
      maxSteps: 3,
      learningRate: 0.01,
      method: 'qlora',
    })
  })

  test('says which base it belongs to, and how that is held', async () => {
    const data = train()
    const { result, said } = await evaluated('found', { adapter: output, data })
    expect(said).toContain(`base model: ${quickstart} (by ${join(output, 'run.json')})`)
    expect(said.join('\n')).toMatch(/base model: 4-bit nf4/)
    expect(result.loss).toBe((await evaluate({ model: quickstart, adapter: output, data, method: 'qlora' })).loss)
    // Of an adapter from elsewhere PEFT's own file says it.
    const foreign = join(folder, 'foreign')
    for (const name of ['adapter_config.json', 'adapter_model.safetensors'])
      cpSync(join(output, name), join(foreign, name))
    const other = await evaluated('foreign', { adapter: foreign, data })
    expect(other.said).toContain(`base model: ${quickstart} (by ${join(foreign, 'adapter_config.json')})`)
    const config = JSON.parse(readFileSync(join(foreign, 'adapter_config.json'), 'utf8')) as object
    const edit = (name: string | null): void =>
      writeFileSync(join(foreign, 'adapter_config.json'), JSON.stringify({ ...config, base_model_name_or_path: name }))
    edit(null)
    await expect(evaluate({ adapter: foreign, data })).rejects.toThrow(/nothing in .*foreign says which model/)
    edit('./gone/model')
    await expect(evaluate({ adapter: foreign, data })).rejects.toThrow(/the base model .\/gone\/model is not there/)
  })

  /** Two examples, drawn with a seed that does not change; one that is asked is never in its own prompt. */
  const drawn = <T>(all: readonly T[], asked: T): T[] =>
    Array.from(shuffled(all.length, stream(0, 'shots')).subarray(0, 3), (i) => all[i]!)
      .filter((one) => one !== asked)
      .slice(0, 2)

  test('is compared with its base, and with examples in the prompt', async () => {
    const data = train()
    const result = await evaluate({ adapter: output, data, metrics, baseline: true, shots: 2, shotsFrom: data })
    const held = { model: quickstart, method: 'qlora' as const, metrics }
    const [base, shots] = result.baselines!
    const alone = await evaluate({ ...held, data })
    expect(base).toEqual({ ...alone, data: undefined, shots: 0 })
    expect(result.loss).not.toBe(base!.loss)
    const before = (pair: (typeof pairs)[number]): string =>
      drawn(pairs, pair)
        .map(({ prompt, completion }) => `${prompt}${completion}\n\n`)
        .join('')
    const joined = writeLines(
      'joined.jsonl',
      pairs.map((pair) => ({ ...pair, prompt: before(pair) + pair.prompt })),
    )
    expect(shots).toEqual({ ...(await evaluate({ ...held, data: joined })), data: undefined, shots: 2 })
  })

  test('goes with examples as earlier turns of a conversation, which are not learned', async () => {
    const data = writeLines('chats.jsonl', chats)
    const options = { model: quickstart, chatTemplate: 'zephyr' }
    const before = (chat: (typeof chats)[number]): object[] =>
      drawn(chats, chat).flatMap(({ messages }) =>
        messages.slice(1).map((message) => (message.role === 'assistant' ? { ...message, weight: 0 } : message)),
      )
    const joined = writeLines(
      'turns.jsonl',
      chats.map((chat) => ({ messages: [chat.messages[0], ...before(chat), ...chat.messages.slice(1)] })),
    )
    const { baselines, ...rest } = await evaluate({ ...options, data, shots: 2, shotsFrom: data })
    expect(baselines).toEqual([{ ...(await evaluate({ ...options, data: joined })), data: undefined, shots: 2 }])
    expect(baselines![0]!.labelTokens).toBe(rest.labelTokens)
    await expect(evaluate({ ...options, data: train(), shots: 2, shotsFrom: data })).rejects.toThrow(
      /colours\.jsonl:1: examples for its prompt are of another form/,
    )
    await expect(evaluate({ ...options, data, shots: 9, shotsFrom: data })).rejects.toThrow(
      /9 examples are asked for, .* has 4/,
    )
  })

  test('is shown in a table', async () => {
    const { code, stdout } = await lowrankHere([
      'eval',
      ...flags({ adapter: output, data: train(), metrics: 'accuracy', baseline: true }),
    ])
    expect(code).toBe(0)
    const [titles, base, adapted, counts] = stdout.split('\n')
    expect(titles).toMatch(/^ +loss +token accuracy +label accuracy$/)
    expect(base).toMatch(/^base +\d+\.\d{4} +\d+\.\d % +\d+\.\d %$/)
    expect(adapted).toMatch(/^with adapter +\d/)
    expect(counts).toBe('(8 label tokens, 4 examples)')
    expect(stdout).toContain('expected \\ given')
  })
})

describe('a run', () => {
  const base = {
    model: quickstart,
    maxSteps: 6,
    learningRate: 0.01,
    evalSteps: 2,
    saveSteps: 2,
    perDeviceTrainBatchSize: 2,
    metricForBestModel: 'eval_rougeL',
    maxNewTokens: 3,
    labels: ['red', 'green', 'blue'],
    metrics: ['accuracy'] as ['accuracy'],
    loadBestModelAtEnd: true,
  }
  const data = (): { train: string; valid: string } => {
    const path = writeLines('run.jsonl', pairs)
    return { train: path, valid: path }
  }

  test('keeps the weights that a metric says are best, also when it is resumed', async () => {
    const outputDir = join(folder, 'best')
    const events = await collect({ ...base, ...data(), outputDir })
    const evals = only(events, 'eval')
    expect(evals.map(({ step }) => step)).toEqual([2, 4, 6])
    const values = evals.map(({ metrics }) => metrics!['rougeL']!)
    const best = values.indexOf(Math.max(...values))
    expect(evals.map((event) => event.best)).toEqual(
      values.map((value, i) => value > Math.max(-1, ...values.slice(0, i))),
    )
    const done = last(only(events, 'done'))
    expect(done.best).toEqual({
      step: evals[best]!.step,
      loss: evals[best]!.loss,
      metric: { name: 'rougeL', value: values[best] },
    })
    expect(evals[0]!.confusion!.labels).toEqual(base.labels)
    // What was saved measures the same by itself.
    const { metrics, labels, maxNewTokens } = base
    const again = await evaluate({
      adapter: outputDir,
      data: data().valid,
      metrics: ['accuracy', 'rouge'],
      labels,
      maxNewTokens,
    })
    expect(again.metrics!['rougeL']).toBe(values[best])
    expect(again.loss).toBeCloseTo(evals[best]!.loss, 5)
    expect(metrics).toEqual(['accuracy'])
    const resumed = await collect({
      ...base,
      ...data(),
      outputDir: join(folder, 'resumed'),
      resumeFrom: join(outputDir, 'checkpoint-2'),
    })
    expect(last(only(resumed, 'done')).best).toEqual(done.best)
    expect(only(resumed, 'eval').map(({ metrics: found }) => found)).toEqual(
      evals.slice(1).map(({ metrics: found }) => found),
    )
    const recorded = readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8')
    expect(recorded).toContain('"metrics":{"accuracy":')
    expect(readFileSync(join(outputDir, 'report.html'), 'utf8')).toContain('Best ROUGE-L')
    expect(existsSync(join(outputDir, 'adapter_model.safetensors'))).toBe(true)
  })

  test('ends where the metric no longer gets better, and measures some examples alone', async () => {
    const events = await collect({
      ...base,
      ...data(),
      labels: undefined,
      metrics: undefined,
      outputDir: join(folder, 'stopped'),
      learningRate: 1e-9,
      maxSteps: 20,
      metricForBestModel: 'exact_match',
      metricExamples: 1,
      earlyStoppingPatience: 2,
    })
    const done = last(only(events, 'done'))
    expect(done.stoppedEarly).toEqual({
      step: 6,
      reason: 'exact match did not rise above the highest before, 2 times in a row',
    })
    expect(only(events, 'eval')[0]!.metrics).toEqual({ exactMatch: 0 })
    expect(only(events, 'eval')[0]!.examples).toBe(4)
  })

  test('needs validation data, and a metric that there is', async () => {
    const { train } = data()
    const options = { model: quickstart, train, outputDir: join(folder, 'none') }
    await expect(async () => collect({ ...options, metrics: ['rouge'] })).rejects.toThrow(
      /metrics: needs valid, which is not set/,
    )
    await expect(async () => collect({ ...options, valid: train, metricForBestModel: 'eval_meteor' })).rejects.toThrow(
      /metricForBestModel: found "eval_meteor", expected one of loss, perplexity, .*rougeL/,
    )
  })
})
