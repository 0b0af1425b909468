import { expect, test } from 'vitest'
import { arenaBytes } from '../../src/graph/footprint.ts'
import { print, type Program } from '../../src/graph/program.ts'
import { parseDecoderConfig } from '../../src/model/config.ts'
import type { FamilyName } from '../../src/model/decoder.ts'
import { families } from '../../src/model/families/index.ts'
import { buildStages, stageSizes, type DecoderStages, type StagesOptions } from '../../src/model/stages.ts'

/*
 * The programs of every family by every method as text, so that a change that is not meant to change them is seen not to. After one that is:
 * npx vitest run test/golden/programs.test.ts -u, and read what has changed.
 */

const shape = {
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 16,
  tie_word_embeddings: true,
  attention_bias: true,
}

const isLinear = (name: string): boolean => name.endsWith('_proj.weight')
const isAdapter = (name: string): boolean => name.includes('.lora_')
const lora = { r: 2, scale: 2, dropout: 0.1 }
const adapterOf = (path: string): typeof lora | undefined => (/\.(q|v)_proj$/.test(path) ? lora : undefined)

const methods = {
  lora: {
    policy: { trainable: isAdapter, storage: (name: string) => (isAdapter(name) ? 'F32' : 'BF16') },
    adapterOf,
    activations: 'keep',
  },
  'lora-recompute': {
    policy: { trainable: isAdapter, storage: () => 'F32' },
    adapterOf,
    activations: 'recompute',
  },
  qlora: {
    policy: {
      trainable: isAdapter,
      storage: (name: string) =>
        isLinear(name) ? { kind: '4bit', quantType: 'nf4', blockSize: 32, doubleQuant: false } : 'F32',
    },
    adapterOf,
    activations: 'keep',
  },
  int8: {
    policy: { trainable: isAdapter, storage: (name: string) => (isLinear(name) ? { kind: 'int8' } : 'F32') },
    adapterOf,
    activations: 'keep',
  },
  full: {
    policy: { trainable: () => true, storage: () => 'F32' },
    adapterOf: () => undefined,
    activations: 'keep',
  },
} as const satisfies Record<string, Omit<StagesOptions, 'config'>>

function programsOf({ blocks, head }: DecoderStages): Program[] {
  const all = blocks.flatMap(({ evaluate, forward, backward }) => [evaluate, forward, backward])
  return [...new Set([...all, head.train, head.evaluate, head.logits])].filter((program) => program !== undefined)
}

const sizes = stageSizes({ batch: 2, seq: 16, rows: 10 })

for (const family of Object.keys(families) as FamilyName[]) {
  test.each(Object.keys(methods) as (keyof typeof methods)[])(`${family}, %s`, async (method) => {
    const described = family === 'gemma3' ? { text_config: shape } : shape
    const config = parseDecoderConfig({ model_type: family, ...described }, 'config.json')
    const stages = buildStages({ config, ...methods[method] })
    const texts = programsOf(stages).map((program) => {
      const planned = `${program.nodes.length} nodes, ${arenaBytes(program, sizes)} bytes at 2 x 16 positions`
      return `# ${planned}\n${print(program)}`
    })
    await expect(texts.join('\n\n')).toMatchFileSnapshot(`programs/${family}-${method}.txt`)
  })
}
