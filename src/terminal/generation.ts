import type { CompletionEvent, GenerationEvent, GenerationResult } from '../generate/events.ts'
import type { Prompt } from '../text/prompts.ts'
import { plural } from '../util/format.ts'
import { printable, wrap } from './format.ts'
import { widthOf, type SafeOutput } from './output.ts'

interface GenerationTerminal {
  readonly stdout: SafeOutput
  readonly stderr: SafeOutput
  readonly json: boolean
}

/** Draws completions: the one of a single prompt as it comes; of several, each under its prompt. */
export async function drawGeneration(
  events: AsyncGenerator<GenerationEvent, GenerationResult>,
  { stdout, stderr, json }: GenerationTerminal,
  { single }: { readonly single: boolean },
): Promise<void> {
  for (;;) {
    const { done, value } = await events.next()
    if (done === true) return void stderr.write(`${resultLine(value)}\n`)
    if (value.type === 'status') stderr.write(`${value.message}\n`)
    else if (value.type === 'token') {
      if (single && !json) stdout.write(value.text)
    } else if (json) {
      const { type: _, ...completion } = value
      stdout.write(`${JSON.stringify(completion)}\n`)
    } else stdout.write(single ? '\n' : `${completionLines(value, widthOf(stdout)).join('\n')}\n`)
  }
}

function completionLines({ index, prompt, text }: CompletionEvent, width: number): string[] {
  const shown = wrap(printable(lastOf(prompt).trim()), width - 2).map((line) => `  ${line}`)
  return [
    `prompt ${index + 1}`,
    ...shown,
    'answer',
    ...wrap(printable(text.trim()), width - 2).map((line) => `  ${line}`),
    '',
  ]
}

function lastOf(prompt: Prompt): string {
  if (typeof prompt === 'string') return prompt
  const content = prompt.messages.at(-1)?.['content']
  return typeof content === 'string' ? content : ''
}

function resultLine({ tokens, seconds, completions }: GenerationResult): string {
  const of = completions === 1 ? '' : ` for ${plural(completions, 'prompt')}`
  return `${plural(tokens, 'token')}${of} in ${seconds.toFixed(1)} s (${(tokens / seconds).toFixed(1)} a second)`
}
