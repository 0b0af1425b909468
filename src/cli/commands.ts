import {
  compareSchema,
  evalSchema,
  type Option,
  optionsOf,
  quantizeSchema,
  replaySchema,
  reportSchema,
  runsSchema,
  selftestSchema,
  trainSchema,
} from '../config/index.ts'
import { evaluation } from './eval.ts'
import type { Positional } from './flags.ts'
import type { Invocation } from './io.ts'
import { quantization } from './quantize.ts'
import { compare, report, runs } from './runs.ts'
import { replay } from './replay.ts'
import { selftest } from './selftest.ts'
import { train } from './train.ts'

/** A command of the command line; its flags are the options of its schema. */
export interface Command {
  /** One word, or two: `runs compare`. */
  readonly name: string
  readonly summary: string
  readonly usage: string
  readonly notes: string
  /** Whether a YAML file may come before the flags. */
  readonly configFile?: boolean
  /** What is not a flag, in order. */
  readonly positionals?: readonly Positional[]
  options(): readonly Option[]
  run(invocation: Invocation): Promise<void>
}

export const commands: readonly Command[] = [
  {
    name: 'train',
    summary: 'Train a LoRA adapter, or a whole model, on a file of prompts and completions',
    usage: '[CONFIG.yaml] [flags]',
    notes:
      'Options come from the YAML file and from flags; flags win. A file takes the names below in camelCase (loraAlpha) ' +
      'or as in PEFT and transformers (lora_alpha); paths in it are relative to the current folder. ' +
      'Ctrl-C stops after the current step and saves a checkpoint.',
    configFile: true,
    options: () => optionsOf(trainSchema),
    run: train,
  },
  {
    name: 'eval',
    summary: 'Measure the loss of a model, with or without an adapter, on a file of prompts and completions',
    usage: '[flags]',
    notes:
      'Loss is in nats per label token; token accuracy is the share of label tokens that greedy decoding gets right.',
    options: () => optionsOf(evalSchema),
    run: evaluation,
  },
  {
    name: 'quantize',
    summary: 'Quantize a model to 4 or 8 bits a weight, as bitsandbytes does, into a folder of its own',
    usage: '[flags]',
    notes:
      'Linear layers are quantized; norms, embeddings and the output head stay as they are. The result serves as --model ' +
      'here, and transformers loads it.',
    options: () => optionsOf(quantizeSchema),
    run: quantization,
  },
  {
    name: 'replay',
    summary: 'Compute a step of an earlier run again, and report the loss of each of its examples',
    usage: 'RUN --step N [flags]',
    notes:
      'RUN is the output folder of a training run. Batches and dropout masks are those of the step; its weights are ' +
      'recomputed from the newest checkpoint before it, or from the start, so that the loss equals the recorded one to the last bit. ' +
      '--at takes weights as they are, where that would take too long.',
    positionals: [{ name: 'RUN', required: true }],
    options: () => optionsOf(replaySchema),
    run: replay,
  },
  {
    name: 'selftest',
    summary: 'Check on your own model and machine that training computes what it promises',
    usage: '[flags]',
    notes:
      'Gradients are compared with differences of losses; what must make no difference (accumulation, packing, memory ' +
      'choices, stopping and resuming) is checked to make none. The exit code is 1 if a check fails. Nothing is written but ' +
      'temporary files.',
    options: () => optionsOf(selftestSchema),
    run: selftest,
  },
  {
    name: 'report',
    summary: 'Write the report of a run again, from its run.json and metrics.jsonl',
    usage: 'RUN [flags]',
    notes:
      'RUN is the output folder of a training run, which may still be running. A run writes its report itself when it ends.',
    positionals: [{ name: 'RUN', required: true }],
    options: () => optionsOf(reportSchema),
    run: report,
  },
  {
    name: 'runs',
    summary: 'List the runs below a folder, the newest first',
    usage: '[FOLDER] [flags]',
    notes: 'FOLDER is the current one unless given. A run is a folder with a run.json.',
    positionals: [{ name: 'FOLDER', required: false }],
    options: () => optionsOf(runsSchema),
    run: runs,
  },
  {
    name: 'runs compare',
    summary: 'Compare runs: options that differ, figures, and a page with their curves laid over one another',
    usage: 'RUN RUN... [flags]',
    notes: 'RUN is the output folder of a training run.',
    positionals: [
      { name: 'RUN', required: true },
      { name: 'a second RUN', required: true, repeated: true },
    ],
    options: () => optionsOf(compareSchema),
    run: compare,
  },
]
