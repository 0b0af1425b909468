import { trainOptions, type TrainConfig, type TrainConfigInput } from '../config/index.ts'
import { withSinks } from '../report/sinks/sink.ts'
import { Webhook } from '../report/sinks/webhook.ts'
import type { TrainEvent } from '../train/events.ts'
import type { CallOptions } from './compute.ts'
import { defineStream } from './define.ts'

export type { TrainConfigInput, TrainEvent }

/**
 * Fine-tunes a model: `for await (const event of finetune({ model, train, outputDir })) …`. Computes in a worker thread. The
 * adapter (or, with method full, the model) is in `outputDir` when the `done` event comes.
 *
 * @throws LowrankError `config`, `data`, `model`, `adapter`: the input was refused, before anything was trained.
 */
export const finetune: (config: TrainConfigInput, options?: CallOptions) => AsyncGenerator<TrainEvent, void> =
  defineStream({
    name: 'train',
    summary: 'Train a LoRA adapter, or a whole model, on a file of prompts and completions',
    usage: '[CONFIG.yaml] [flags]',
    notes:
      'Options come from the YAML file and from flags; flags win. A file takes the names below in camelCase (loraAlpha) ' +
      'or as in PEFT and transformers (lora_alpha); paths in it are relative to the current folder. ' +
      'Ctrl-C stops after the current step and saves a checkpoint.',
    configFile: true,
    options: trainOptions,
    load: async () => (await import('../tasks/finetune.ts')).runFinetune,
    around: withWebhook,
    draw: async (events, terminal, config) => {
      const { drawRun } = await import('../terminal/run.ts')
      await drawRun(events, terminal, nextCommand(config))
    },
  })

/** The events of a run, posted to its webhook too, if it has one: from here, since the thread that computes is busy for seconds. */
function withWebhook(
  { reportTo, webhookUrl, ...config }: TrainConfig,
  events: AsyncGenerator<TrainEvent, void>,
): AsyncGenerator<TrainEvent, void> {
  const isPosted = webhookUrl !== undefined && reportTo.includes('webhook')
  return withSinks(isPosted ? [new Webhook({ webhookUrl, ...config })] : [], events)
}

/** How to measure what was trained, on the validation data if there is some. How the base was held says the run.json beside the adapter. */
function nextCommand(config: TrainConfig): string | undefined {
  if (config.valid === undefined) return undefined
  const model =
    config.method === 'full'
      ? `--model ${quote(config.outputDir)}`
      : `--model ${quote(config.model)} --adapter ${quote(config.outputDir)}`
  return `npx lowrank eval ${model} --data ${quote(config.valid)}`
}

function quote(path: string): string {
  return /^[\w@%+:,./~-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
