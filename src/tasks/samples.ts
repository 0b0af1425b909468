import { Completions } from '../generate/completions.ts'
import { Generator, type GenerateRequest } from '../generate/generator.ts'
import type { OpenModel } from '../session/session.ts'
import { lastAnswer } from '../text/encode.ts'
import type { Example } from '../text/example.ts'
import type { TrainEvent } from '../train/events.ts'

/** Completes the prompts of some examples, to be read beside what was expected. */
export async function* complete(
  { generation, tokenizer }: OpenModel,
  examples: readonly Example[],
  when: 'before' | 'after',
  cancelled: () => boolean,
): AsyncGenerator<TrainEvent> {
  if (examples.length === 0) return
  const { decoder, adapter } = await generation()
  const pairs = examples.map(({ ids, labelMask }) => {
    // Of a text that is learned whole, the first token stands for a prompt.
    const start = Math.max(1, lastAnswer(labelMask))
    return { prompt: ids.slice(0, start), expected: ids.subarray(start) }
  })
  const requests = pairs.map(({ prompt, expected }): GenerateRequest => ({
    ids: prompt,
    adapter,
    // A little more than was expected, so that a model that does not stop is seen not to.
    maxNewTokens: expected.length + 8,
    sampling: { doSample: false },
    seed: 0,
    endIds: new Set([tokenizer.eosId]),
  }))
  const texts = await tokenizer.decode(pairs.flatMap(({ prompt, expected }) => [prompt, expected]))
  const completions = new Completions(texts.filter((_, i) => i % 2 === 0))
  for await (const token of new Generator(decoder, tokenizer).generate(requests, cancelled)) {
    for (const event of completions.add(token)) {
      if (event.type === 'token') continue
      const { index, text: completion } = event
      const [prompt = '', expected = ''] = texts.slice(2 * index)
      yield { type: 'sample', when, prompt, completion, expected }
    }
  }
  tokenizer.close()
}
