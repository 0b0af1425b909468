import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generate, type GenerationEvent } from 'lowrank'
import { describe, expect, test } from 'vitest'
import { openGenerator } from '../../src/generate/open.ts'
import type { GeneratedToken } from '../../src/generate/generator.ts'
import {
  all,
  flags,
  lowrank,
  lowrankHere,
  makeTinyModel,
  parseLines,
  quickstart,
  temporaryFolder,
  writeElements,
} from './support.ts'

const folder = temporaryFolder()
const ticket =
  'Ticket from Zoe Jensen\nHello. I have moved to Denver. How do I change the address for my yellow plate?\n'

interface Line {
  readonly index: number
  readonly prompt: unknown
  readonly text: string
  readonly finishReason: string
  readonly tokens: number
  readonly logprobs?: readonly { readonly id: number; readonly logprob: number; readonly top: readonly object[] }[]
}

/** A copy of the model with other files. */
function changed(files: Readonly<Record<string, string>>): string {
  const copy = join(folder, `${Math.random()}`)
  cpSync(quickstart, copy, { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(copy, name), text)
  return copy
}

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

describe('the command', () => {
  test('a prompt: standard output is the text alone', async () => {
    const { code, stdout, stderr } = await lowrank([
      'generate',
      '--model',
      quickstart,
      '--prompt',
      ticket,
      '--max-new-tokens',
      '40',
    ])
    expect(code, stderr).toBe(0)
    expect(stderr).toMatch(/^weights: f32; greedy\n\d+ tokens in [\d.]+ s \([\d.]+ a second\)\n$/)
    const json = await lowrankHere([
      'generate',
      '--model',
      quickstart,
      '--prompt',
      ticket,
      '--max-new-tokens',
      '40',
      '--json',
      '--logprobs',
      '2',
    ])
    const [line] = parseLines<Line>(json.stdout)
    expect(`${line!.text}\n`).toBe(stdout)
    expect(line).toMatchObject({ index: 0, prompt: ticket, finishReason: 'length', tokens: 40 })
    expect(line!.logprobs).toHaveLength(line!.tokens)
    expect(line!.logprobs!.every(({ logprob, top }) => logprob <= 0 && top.length === 2)).toBe(true)
  })

  test('prompts of a file, in their order, each as it is alone', async () => {
    const prompts = [ticket, 'Ticket', { messages: [{ role: 'user', content: 'Hello' }] }, '']
    const path = file(
      'prompts.jsonl',
      prompts.map((one) => JSON.stringify(typeof one === 'string' ? { prompt: one } : one)).join('\n'),
    )
    const template = file(
      'chat.jinja',
      "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    )
    const common = ['generate', '--model', quickstart, '--max-new-tokens', '24', '--json', '--chat-template', template]
    const { code, stdout, stderr } = await lowrankHere([...common, '--prompts', path])
    expect(code, stderr).toBe(0)
    const lines = parseLines<Line>(stdout)
    expect(lines.map(({ index }) => index)).toEqual([0, 1, 2, 3])
    expect(lines[2]!.prompt).toMatchObject(prompts[2] as object)
    for (const i of [0, 1, 3]) {
      const alone = await lowrankHere([...common, '--prompt', prompts[i] as string])
      expect(parseLines<Line>(alone.stdout)[0]).toEqual({ ...lines[i], index: 0 })
    }
    // Without --json, each under its prompt.
    const drawn = await lowrankHere([...common.filter((one) => one !== '--json'), '--prompts', path])
    expect(drawn.stdout.match(/^prompt \d$/gm)).toEqual(['prompt 1', 'prompt 2', 'prompt 3', 'prompt 4'])
  })

  test.each([
    ['no prompt', ['--model', quickstart], 'either it or'],
    ['two of them', ['--model', quickstart, '--prompt', 'a', '--prompts', 'b.jsonl'], 'either it or'],
    ['no model', ['--model', '/nowhere', '--prompt', 'a'], '/nowhere'],
    ['a temperature that is none', ['--model', quickstart, '--prompt', 'a', '--temperature', '-1'], '--temperature'],
    ['no file', ['--model', quickstart, '--prompts', '/nowhere.jsonl'], '/nowhere.jsonl'],
  ])('%s: code 2, and nothing on standard output', async (_, args, message) => {
    const { code, stdout, stderr } = await lowrankHere(['generate', ...args])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toContain(message)
    expect(stderr).not.toContain('internal')
  })
})

describe('what cannot be used is named', () => {
  const failing = async (input: Readonly<Record<string, string>>): Promise<string> => {
    const { code, stdout, stderr } = await lowrankHere(['generate', ...flags(input)])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).not.toContain('internal')
    return stderr
  }

  test.each([
    ['{"temperature": "hot"}', 'temperature'],
    ['{"top_p": 1.5}', 'top_p'],
    ['{"top_k": -1}', 'top_k'],
    ['{"repetition_penalty": 0}', 'repetition_penalty'],
    ['{"do_sample": "yes"}', 'do_sample'],
    ['{"eos_token_id": -1}', 'eos_token_id'],
    ['{"eos_token_id": [0, "end"]}', 'eos_token_id'],
    ['[1]', 'generation_config.json'],
    ['{"top_p": ', 'generation_config.json'],
  ])('generation_config.json: %s', async (text, key) => {
    const model = changed({ 'generation_config.json': text })
    const error = await failing({ model, prompt: 'Ticket' })
    expect(error).toContain(join(model, 'generation_config.json'))
    expect(error).toContain(key)
  })

  test.each([
    ['{"prompt": "a"}\n{"text": "b"}\n', ':2:', 'prompt'],
    ['{"prompt": 1}\n', ':1:', 'prompt'],
    ['{"messages": []}\n', ':1:', 'messages'],
    ['{"messages": [{"role": "assistant", "content": "a"}]}\n', ':1:', 'nothing to answer'],
    ['{"prompt": "a"}\nnot json\n', ':2:', 'JSON'],
    ['"a"\n', ':1:', 'prompt'],
  ])('a prompts file: %s', async (text, place, what) => {
    const prompts = file(`${Math.random()}.jsonl`, text)
    const error = await failing({ model: quickstart, prompts })
    expect(error).toContain(`${prompts}${place}`)
    expect(error).toContain(what)
  })

  test('a prompt that is longer than the model is made for, by its number', async () => {
    const long = 'word '.repeat(3000)
    const prompts = file('long.jsonl', `${JSON.stringify({ prompt: 'short' })}\n${JSON.stringify({ prompt: long })}\n`)
    expect(await failing({ model: quickstart, prompt: long })).toMatch(
      /^error: the prompt has \d+ tokens, but .*model is made for 512/m,
    )
    expect(await failing({ model: quickstart, prompts })).toMatch(/^error: prompt 2 has \d+ tokens/m)
  })

  test('a conversation where there is no template', async () => {
    const prompts = file('chat.jsonl', JSON.stringify({ messages: [{ role: 'user', content: 'Hello' }] }))
    const error = await failing({ model: quickstart, prompts })
    expect(error).toContain('--chat-template')
  })

  test('weights that overflow', async () => {
    const tiny = await makeTinyModel(join(folder))
    writeElements(join(tiny, 'model.safetensors'), 'model.layers.1.mlp.up_proj.weight', 3e38, { all: true })
    expect(await failing({ model: tiny, prompt: 'Ticket' })).toContain('the logits of the next token are not finite')
  })
})

describe('texts', () => {
  test('as many tokens as were asked for; ends at once, where the model says so', async () => {
    await using generator = await openGenerator({ model: quickstart })
    const asked = { seed: 1, presencePenalty: 0, frequencyPenalty: 0 }
    const of = async (prompt: string, more: object): Promise<GeneratedToken[]> =>
      all(generator.generate([prompt], { ...asked, maxNewTokens: 30, ...more }))
    for (const maxNewTokens of [1, 2, 7]) {
      const tokens = await of(ticket, { maxNewTokens })
      expect(tokens).toHaveLength(maxNewTokens)
      expect(tokens.at(-1)!.finish).toBe('length')
    }
    const atOnce = await of(ticket, { logitBias: { 0: 100 } })
    expect(atOnce.map(({ id, text, finish }) => [id, text, finish])).toEqual([[0, '', 'eos']])
    const whole = (await of(ticket, {})).map(({ text }) => text).join('')
    const stop = whole.slice(9, 14)
    const stopped = await of(ticket, { stop: [stop, 'nowhere'] })
    expect(stopped.map(({ text }) => text).join('')).toBe(whole.slice(0, whole.indexOf(stop)))
    expect(stopped.at(-1)!.finish).toBe('stop')
    // An end in the middle of a character leaves what is there of it.
    const [first] = await generator.tokenizer.encode(['é'])
    const half = await all(
      generator.generate(['x'], (i) => ({ ...asked, maxNewTokens: 1 + i, logitBias: { [first![0]!]: 100 } })),
    )
    expect(half.map(({ text }) => text).join('')).toBe((await generator.tokenizer.decode([[first![0]!]]))[0])
  })

  test('equal seeds give equal texts, alone and in a batch; others give others', async () => {
    await using generator = await openGenerator({ model: quickstart })
    const prompts = ['Ticket from', 'Hello', ticket, 'Ticket from', 'My order']
    const draw = {
      doSample: true,
      temperature: 1.3,
      topK: 0,
      maxNewTokens: 16,
      presencePenalty: 0,
      frequencyPenalty: 0,
    }
    const made = async (some: readonly string[], seed: number): Promise<string[]> => {
      const texts = some.map(() => '')
      for await (const { index, text } of generator.generate(some, { ...draw, seed })) texts[index] += text
      return texts
    }
    const batch = await made(prompts, 3)
    expect(await made(prompts, 3)).toEqual(batch)
    // Alone a text is the first of its batch.
    expect(await made(prompts.slice(0, 1), 3)).toEqual(batch.slice(0, 1))
    for (let count = 2; count < prompts.length; count++)
      expect(await made(prompts.slice(0, count), 3)).toEqual(batch.slice(0, count))
    expect(batch[3]).not.toBe(batch[0])
    expect(await made(prompts, 4)).not.toEqual(batch)
  })

  test('cancelling ends them within a token', async () => {
    await using generator = await openGenerator({ model: quickstart })
    let cancelled = false
    let [before, after] = [0, 0]
    const prompts = ['Ticket', 'Hello', 'My order']
    for await (const { index } of generator.generate(
      prompts,
      { maxNewTokens: 200, doSample: true, seed: 1, presencePenalty: 0, frequencyPenalty: 0, logitBias: { 0: -100 } },
      () => cancelled,
    )) {
      if (cancelled) after++
      // When all are under way.
      else cancelled = ++before > 8 && index === 1
    }
    // The others of the step that was under way.
    expect(after).toBeLessThan(prompts.length)

    const controller = new AbortController()
    const events: GenerationEvent[] = []
    const run = async (): Promise<void> => {
      const input = { model: quickstart, prompt: 'Ticket', maxNewTokens: 400, logitBias: { 0: -100 } }
      for await (const event of generate(input, { signal: controller.signal })) {
        events.push(event)
        if (event.type === 'token') controller.abort()
      }
    }
    await expect(run()).rejects.toThrow()
    expect(events.filter(({ type }) => type === 'token').length).toBeLessThan(20)
    expect(events.some(({ type }) => type === 'completion')).toBe(false)
  })

  test('generation_config.json decides, and flags decide over it', async () => {
    const model = changed({
      'generation_config.json':
        '{"do_sample": true, "temperature": 0.7, "top_k": 5, "top_p": 0, "eos_token_id": [0, 7]}',
    })
    const line = async (...args: string[]): Promise<string | undefined> =>
      (
        await lowrankHere(['generate', '--model', model, '--prompt', 'a', '--max-new-tokens', '1', ...args])
      ).stderr.split('\n')[0]
    expect(await line()).toBe('weights: f32; temperature 0.7, top-k 5, top-p 0')
    expect(await line('--no-do-sample')).toBe('weights: f32; greedy')
    expect(await line('--temperature', '0')).toBe('weights: f32; greedy')
    expect(await line('--top-k', '0', '--top-p', '1', '--repetition-penalty', '1.1')).toBe(
      'weights: f32; temperature 0.7, repetition penalty 1.1',
    )
  })
})
