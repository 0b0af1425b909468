import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { evalOptions, quantizeOptions } from '../commands/options.fixture.ts'
import { parseTrainConfig, trainOptions } from '../config/index.ts'
import type { TrainEvent } from '../train/events.ts'
import { LowrankError } from '../util/errors.ts'
import { recordedRun } from '../terminal/recorded.fixture.ts'
import { lowrank, trainFlags, type Outcome } from './harness.fixture.ts'

describe('train', () => {
  test('flags arrive as options', async () => {
    const { code, trainConfigs, stderr } = await lowrank([
      'train',
      ...trainFlags,
      '--valid=v.jsonl',
      ...'--r 32 --lora-alpha 64 --target-modules q_proj,v_proj --lora-dropout 0.05 --bias none'.split(' '),
      ...'--learning-rate 2e-4 --max-steps -1 --load-best-model-at-end --no-skip-bad-lines'.split(' '),
    ])
    expect(stderr).not.toContain('error')
    expect(code).toBe(0)
    expect(trainConfigs).toEqual([
      parseTrainConfig({
        model: 'm',
        train: 't.jsonl',
        valid: 'v.jsonl',
        outputDir: 'out',
        r: 32,
        loraAlpha: 64,
        targetModules: ['q_proj', 'v_proj'],
        loraDropout: 0.05,
        bias: 'none',
        learningRate: 2e-4,
        maxSteps: -1,
        loadBestModelAtEnd: true,
        skipBadLines: false,
      }),
    ])
  })

  test('flags are understood as other tools spell them', async () => {
    const { trainConfigs } = await lowrank([
      'train',
      ...'--model_name_or_path m --train t --output_dir=o --lora_alpha 3'.split(' '),
      ...'--no-use_rslora --skip_bad_lines=true'.split(' '),
    ])
    expect(trainConfigs).toEqual([
      parseTrainConfig({
        model: 'm',
        train: 't',
        outputDir: 'o',
        loraAlpha: 3,
        useRslora: false,
        skipBadLines: true,
      }),
    ])
  })

  test('the bound on memory is an option of evaluations too', async () => {
    const { code, evalConfigs } = await lowrank('eval --model m --data d --memory 8GB'.split(' '))
    expect([code, evalConfigs]).toEqual([0, [evalOptions.parse({ model: 'm', data: 'd', memory: '8GB' })]])
  })

  test('a file comes before the flags, and flags win', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'lowrank-cli-')), 'run.yaml')
    writeFileSync(path, 'model: m\ntrain: t\noutput_dir: o\nr: 4\nseed: 7\n')
    const { trainConfigs } = await lowrank(['train', path, '--r', '16'])
    const config = parseTrainConfig({ model: 'm', train: 't', outputDir: 'o', r: 16, seed: 7 })
    // With the file, which the run must not replace.
    expect(trainConfigs).toEqual([{ ...config, configFile: path }])
  })

  test('results on stdout, progress on stderr', async () => {
    const { stdout, stderr, code } = await lowrank(['train', ...trainFlags, '--valid', "it's.jsonl"])
    expect(code).toBe(0)
    expect(stderr).toMatchInlineSnapshot(`
      "reading m
      train: 800 examples, 40,000 tokens, 9,000 of them labels; 3 longer than maxLength, cut with their EOS, 1 dropped, no label being left (t.jsonl)
      valid: 80 examples, 4,000 tokens, 900 of them labels (v.jsonl)
      resuming after step 1, from out/checkpoint-1
      llama: 134,515,008 parameters, 921,600 trained (0.69 %); 3 steps; 2 threads
      base expanded to f32, in memory; activations kept; 512 rows at a time through the head
      products with frozen weights in f32: as asked for
      memory: 1.73 GB expected (activations 640 MB, base weights 540 MB)
      less memory with "activations": recompute; a smaller maxLength
      step 1/3  loss 2.5000  812 tokens/s  1.20 GB  8.0 s left
      step 2  epoch 0.67  loss 2.2500  lr 1.00e-4  grad norm 0.5300
      step 2  eval loss 1.9000  perplexity 6.6859  accuracy 61.5 %  1.2 s  (best so far)
      warning: loss rose
      step 3  spike: loss 7.5000, expected at most 2.7500 (median 2.0000); the update was applied
      its examples: lines 3, 14, 15 of the training data
      hint: Look at these lines.
      step 3  the eval loss rises (1.9000 at step 2, now 2.5000) while the train loss falls (2.0000, now 1.0000): the model is memorizing the examples
      hint: Fewer epochs.
      step 3  saved out/checkpoint-3
      "
    `)
    expect(stdout).toMatchInlineSnapshot(`
      "
      sample 1
        prompt    Ticket: the invoice is wrong
                  Category:
        expected  billing
        before                                          | after
        ----------------------------------------------- | -----------------------------------------------
        I do not know what a ticket is. I do not know   | billing
        what a ticket is.                               | \\u001b[31m

      3 steps in 12 s: train loss 2.0000, best eval loss 1.9000 at step 2, peak memory 1.31 GB
      computed 3,072 tokens: 600 labels, 6.3 % padding
      saved in out, with its curves in report.html
      next: npx lowrank eval --model m --adapter out --data 'it'\\''s.jsonl'
      "
    `)
  })

  test('--json: one event a line, nothing else on stdout', async () => {
    const { stdout, stderr } = await lowrank(['train', ...trainFlags, '--json'])
    const lines = stdout.trimEnd().split('\n')
    expect(lines.map((line) => JSON.parse(line) as TrainEvent)).toEqual(JSON.parse(JSON.stringify(recordedRun)))
    expect(stderr).toContain('saved in out')
  })
})

describe('eval', () => {
  test('--json prints one line', async () => {
    const { stdout, code, evalConfigs } = await lowrank('eval --model m --adapter a --data d --json'.split(' '))
    expect(code).toBe(0)
    const figures = '{"loss":0.5,"perplexity":1.6487,"tokenAccuracy":0.875,"labelTokens":1200,"examples":40,'
    const lines = '"tokens":5000,"labelTokens":1200,"truncated":3,"dropped":1,"skippedLines":2'
    expect(stdout).toBe(`${figures}"data":{"path":"d","shape":"pairs","findings":[],"examples":40,${lines}}}\n`)
    expect(evalConfigs).toEqual([evalOptions.parse({ model: 'm', adapter: 'a', data: 'd' })])
  })

  test('in words without', async () => {
    const { stdout, stderr } = await lowrank('eval --model m --data d'.split(' '))
    expect(stderr).toContain(
      '3 longer than maxLength, cut with their EOS, 1 dropped, no label being left, 2 malformed lines passed over (d)',
    )
    expect(stdout).toBe('loss 0.5000  perplexity 1.6487  token accuracy 87.5 %  (1,200 label tokens, 40 examples)\n')
  })
})

describe('quantize', () => {
  test('to nf4 where nothing else is said', async () => {
    const { stdout, stderr, code, quantizeConfigs } = await lowrank('quantize --model m --output q'.split(' '))
    expect(code).toBe(0)
    expect(stderr).toBe('quantizing m: 4-bit nf4 with double quantization in blocks of 64\n')
    expect(stdout).toBe(
      'saved in q  123 MB  4-bit nf4 with double quantization in blocks of 64  (1,200 tensors, 4.2 s)\n',
    )
    expect(quantizeConfigs).toEqual([quantizeOptions.parse({ model: 'm', output: 'q' })])
  })

  test('--json prints one line', async () => {
    const flags = '--load-in-4bit --bnb-4bit-quant-type fp4 --no-bnb-4bit-use-double-quant --bnb-4bit-block-size=128'
    const { stdout, quantizeConfigs } = await lowrank(`quantize --model m --output q ${flags} --json`.split(' '))
    expect(JSON.parse(stdout)).toEqual({
      outputDir: 'q',
      bytes: 123456789,
      tensors: 1200,
      seconds: 4.2,
      quantization: { kind: '4bit', quantType: 'fp4', doubleQuant: false, blockSize: 128 },
    })
    expect(quantizeConfigs).toEqual([
      quantizeOptions.parse({
        model: 'm',
        output: 'q',
        loadIn4bit: true,
        bnb4bitQuantType: 'fp4',
        bnb4bitUseDoubleQuant: false,
        bnb4bitBlockSize: 128,
      }),
    ])
  })

  test('to 8 bits', async () => {
    const { stdout } = await lowrank('quantize --model m --output q --load-in-8bit --max_shard_size 2GB'.split(' '))
    expect(stdout).toContain('  8-bit  (1,200 tensors')
  })
})

test('the next command after training says nothing of the base: the run.json beside the adapter does', async () => {
  for (const given of [[], ['--method', 'qlora'], ['--load-in-8bit']]) {
    const { stdout } = await lowrank(['train', ...trainFlags, '--valid', 'v', ...given])
    expect(stdout).toContain('next: npx lowrank eval --model m --adapter out --data v\n')
  }
})

test('one command line serves every method', async () => {
  const shared = '--r 16 --target-modules q_proj --bnb-4bit-quant-type fp4 --save-dtype bf16 --method'.split(' ')
  for (const method of ['lora', 'qlora', 'full']) {
    const { code, trainConfigs, stderr } = await lowrank(['train', ...trainFlags, ...shared, method])
    expect(code, stderr).toBe(0)
    expect(trainConfigs).toMatchObject([{ method, r: 16, bnb4bitQuantType: 'fp4', saveDtype: 'bf16' }])
  }
})

describe('bad usage exits with 2 and a reason on stderr', () => {
  test.each([
    [[], 'no command given'],
    [['trian'], 'unknown command "trian". Did you mean "train"?'],
    [['train', ...trainFlags, '--lora-alfa', '8'], '--lora-alfa: unknown option. Did you mean "--lora-alpha"?'],
    [['train', ...trainFlags, '--bf16'], '--bf16: unknown option. Lowrank computes in f32'],
    [['train', ...trainFlags, '-r', '8'], '-r: unknown option. Did you mean "--r"?'],
    [['train', ...trainFlags, '--r'], '--r: needs a value (--r N)'],
    [['train', ...trainFlags, '--r', '--seed', '3'], '--r: needs a value'],
    [['train', ...trainFlags, '--skip-bad-lines', 'True'], 'unexpected argument "True"'],
    [['train', ...trainFlags, '--skip-bad-lines=maybe'], '--skip-bad-lines: found "maybe"'],
    [['train', 'a.yaml', 'b.yaml'], 'unexpected argument "b.yaml"'],
    [['train', '/nonexistent/a.yaml'], 'a.yaml: no such file'],
    [['train', '--model', 'm'], '--train: missing'],
    [['train', ...trainFlags, '--r', '0'], '--r: found 0, expected a whole number'],
    [
      ['train', ...trainFlags, '--load-in-4bit', '--load-in-8bit'],
      '--load-in-4bit: cannot be combined with --load-in-8bit',
    ],
    [
      ['train', ...trainFlags, '--method', 'full', '--load-in-4bit'],
      '--load-in-4bit: --method full trains every weight',
    ],
    [
      ['eval', '--model', 'm', '--data', 'd', '--bnb_4bit_quant_type=nf4'],
      '--bnb-4bit-quant-type: describes a base in 4 bits',
    ],
    [['train', ...trainFlags, '--bnb-4bit-compute-dtype', 'bf16'], '--bnb-4bit-compute-dtype: unknown option. Lowrank'],
    [['train', ...trainFlags, '--memory', '8G'], '--memory: found "8G", expected a size such as 8GB'],
    [['quantize', '--model', 'm', '--output-dir', 'o'], '--output-dir: unknown option. Did you mean "--output"?'],
    [['quantise'], 'Did you mean "quantize"?'],
    [['eval', 'x.yaml'], 'unexpected argument "x.yaml"'],
    [['report'], 'RUN is missing'],
    [['report', 'a', 'b'], 'unexpected argument "b"'],
    [['runs', 'compare'], 'RUN is missing'],
    [['runs', 'compare', 'a'], 'a second RUN is missing'],
    [['runs', '--depht', '3'], '--depht: unknown option. Did you mean "--depth"?'],
    [['eval', '--model', 'm', '--data', 'd', '--r', '8'], '--r: unknown option.'],
  ])('%j', async (args, expected) => {
    const { code, stderr, stdout, trainConfigs } = await lowrank(args)
    expect(stderr).toContain(expected)
    expect(stderr).not.toContain('    at ')
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(trainConfigs).toEqual([])
  })

  test('all problems at once, unknown flags among them', async () => {
    const { stderr } = await lowrank(['train', '--model', 'm', '--lernrate', '1', '--r', 'x', '--seed=-1'])
    expect(stderr).toContain('5 problems')
    for (const flag of ['--lernrate', '--train', '--output-dir', '--r', '--seed'])
      expect(stderr).toContain(`  ${flag}:`)
    expect(stderr).toContain('hint: lowrank train --help lists all options.')
  })
})

describe('failures', () => {
  const failing = (error: unknown) =>
    async function* (): AsyncGenerator<TrainEvent> {
      yield await Promise.resolve(recordedRun[0]!)
      throw error
    }

  test.each([
    [new LowrankError('model', 'no config.json in m', { hint: 'Give the folder of a model.' }), 2],
    [new LowrankError('data', 'bad line'), 2],
    [new LowrankError('memory', 'too small'), 1],
    [new LowrankError('cancelled', 'cancelled; checkpoint in out/checkpoint-2'), 130],
    [Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' }), 1],
  ])('%s', async (error, expected) => {
    const { code, stderr } = await lowrank(['train', ...trainFlags], { finetune: failing(error) })
    expect(code).toBe(expected)
    expect(stderr).toContain(error.message)
    expect(stderr.includes('hint: Give the folder')).toBe(error.message.startsWith('no config'))
    expect(stderr).not.toContain('    at ')
    expect(stderr.includes('error: ')).toBe(expected !== 130)
  })

  test('a bug shows its stack', async () => {
    const { code, stderr } = await lowrank(['train', ...trainFlags], { finetune: failing(new TypeError('x is null')) })
    expect(code).toBe(1)
    expect(stderr).toContain('error: internal: x is null')
    expect(stderr).toContain('please report')
    expect(stderr).toContain('    at ')
  })

  test('LOWRANK_DEBUG=1 shows the stack of any error', async () => {
    const env = { LOWRANK_DEBUG: '1' }
    const { stderr } = await lowrank(['train', ...trainFlags], {
      env,
      finetune: failing(new LowrankError('data', 'x')),
    })
    expect(stderr).toContain('    at ')
  })
})

describe('Ctrl-C', () => {
  async function cancel(presses: number, pause: number, end: () => unknown): Promise<Outcome & { exits: number[] }> {
    let interrupt = (): void => undefined
    const exits: number[] = []
    const outcome = await lowrank(['train', ...trainFlags], {
      exits,
      onStart: (listener) => (interrupt = listener),
      finetune: async function* (signal) {
        yield await Promise.resolve(recordedRun[0]!)
        expect(signal?.aborted).toBe(false)
        for (let press = 0; press < presses; press++) {
          if (press > 0) await new Promise((resolve) => setTimeout(resolve, pause))
          interrupt()
        }
        expect(signal?.aborted).toBe(true)
        throw end()
      },
    })
    return { ...outcome, exits }
  }

  test('once: the run is asked to stop, and says where the checkpoint lies', async () => {
    const end = () => new LowrankError('cancelled', 'cancelled after step 2; checkpoint in out/checkpoint-2')
    const { code, stderr, exits } = await cancel(1, 0, end)
    expect(code).toBe(130)
    expect(stderr).toContain('stopping after this step')
    expect(stderr).toContain('checkpoint in out/checkpoint-2')
    expect(exits).toEqual([])
  })

  test('twice: the process ends at once', async () => {
    const { exits } = await cancel(2, 300, () => new LowrankError('cancelled', 'x'))
    expect(exits).toEqual([130])
  })

  test('once, and passed on by npx: once', async () => {
    const { exits, code } = await cancel(2, 5, () => new LowrankError('cancelled', 'x'))
    expect(exits).toEqual([])
    expect(code).toBe(130)
  })

  test('a failure while stopping is not hidden', async () => {
    const { code, stderr } = await cancel(1, 0, () => new LowrankError('io', 'disk full'))
    expect(code).toBe(1)
    expect(stderr).toContain('error: disk full')
  })
})

describe('help', () => {
  test('main', async () => {
    const { stdout, code } = await lowrank(['--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^ {2}train +Train a LoRA adapter/m)
    expect(stdout).toMatch(/^ {2}quantize +Quantize a model/m)
    expect(stdout).toMatch(/^ {2}runs compare +Compare runs/m)
  })

  test('a command: every flag, with its default, in lines that fit', async () => {
    const { stdout, code } = await lowrank(['train', '--help', '--r', 'x', '--lora-alfa'])
    expect(code).toBe(0)
    expect(stdout).toContain(
      '  --lora-alpha N                    Scale: updates are multiplied by alpha / r (default: 8)',
    )
    expect(stdout).toMatch(/--model MODEL .*\n? .*\(required\)/)
    expect(stdout).toContain('(default: q_proj,v_proj)')
    expect(stdout).toContain('--bias none|all|lora_only')
    expect(stdout.match(/^ {2}--/gm)).toHaveLength(trainOptions.list().length + 1)
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100)
  })

  test('help COMMAND is COMMAND --help', async () => {
    expect((await lowrank(['help', 'runs', 'compare'])).stdout).toBe(
      (await lowrank(['runs', 'compare', '--help'])).stdout,
    )
    expect((await lowrank(['help', 'trian'])).stderr).toContain('Did you mean "train"?')
  })

  test('--version', async () => {
    const { stdout } = await lowrank(['--version'])
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})
