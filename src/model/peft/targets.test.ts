import { describe, expect, it } from 'vitest'
import { type LoraConfig, matchModules, ranksOf, scalesOf, type TargetModel } from './targets.ts'

const plain: LoraConfig = {
  r: 8,
  loraAlpha: 8,
  targetModules: ['q_proj'],
  loraDropout: 0,
  bias: 'none',
  useRslora: false,
}

const names = { q: 'self_attn.q_proj', k: 'self_attn.k_proj', v: 'self_attn.v_proj', o: 'self_attn.o_proj' }
const mlp = { gate: 'mlp.gate_proj', up: 'mlp.up_proj', down: 'mlp.down_proj' }
const linears = [0, 1, 2].flatMap((layer) =>
  Object.values({ ...names, ...mlp }).map((name) => `model.layers.${layer}.${name}`),
)
const llama: TargetModel = { modelType: 'llama', linears: [...linears, 'lm_head'], head: 'lm_head' }

/** `0.q` for model.layers.0.self_attn.q_proj, followed by rank and scale where they are not 8 and 1. */
function describeModule(config: LoraConfig, path: string): string {
  const [, , layer, , name] = path.split('.')
  const short = name === undefined ? 'head' : `${layer}.${name.replace('_proj', '')}`
  const [r, scale] = [ranksOf(config, [path]).get(path), scalesOf(config, [path]).get(path) ?? NaN]
  return r === 8 && scale === 1 ? short : `${short}:${r}:${Number(scale.toPrecision(6))}`
}

// What PEFT 0.21 adapts in a Llama of three layers, at which rank and scale, for the same configurations.
const cases: [string, Partial<LoraConfig>, string][] = [
  ['suffix', { targetModules: ['q_proj', 'v_proj'] }, '0.q 0.v 1.q 1.v 2.q 2.v'],
  ['longer suffix', { targetModules: ['self_attn.q_proj', '1.mlp.up_proj'] }, '0.q 1.q 1.up 2.q'],
  ['part of a name', { targetModules: ['q_proj', 'proj'] }, '0.q 1.q 2.q'],
  ['full path', { targetModules: ['model.layers.2.mlp.down_proj'] }, '2.down'],
  ['regex', { targetModules: '.*\\.(0|2)\\.self_attn\\.[qk]_proj' }, '0.q 0.k 2.q 2.k'],
  ['regex suffix only', { targetModules: '.*layers\\.1\\..*(?P<x>gate)_proj' }, '1.gate'],
  ['regex flags', { targetModules: '(?i).*\\.O_PROJ' }, '0.o 1.o 2.o'],
  [
    'all-linear',
    { targetModules: 'all-linear' },
    '0.q 0.k 0.v 0.o 0.gate 0.up 0.down 1.q 1.k 1.v 1.o 1.gate 1.up 1.down 2.q 2.k 2.v 2.o 2.gate 2.up 2.down',
  ],
  [
    'All-Linear excluded',
    { targetModules: 'All-Linear', excludeModules: ['mlp.up_proj', 'k_proj'] },
    '0.q 0.v 0.o 0.gate 0.down 1.q 1.v 1.o 1.gate 1.down 2.q 2.v 2.o 2.gate 2.down',
  ],
  ['head', { targetModules: ['lm_head', 'k_proj'] }, '0.k 1.k 2.k head'],
  ['exclude regex', { targetModules: ['q_proj'], excludeModules: '.*\\.1\\..*' }, '0.q 2.q'],
  ['layers', { targetModules: ['q_proj', 'mlp.up_proj'], layersToTransform: [0, 2] }, '0.q 0.up 2.q 2.up'],
  ['one layer', { targetModules: ['q_proj'], layersToTransform: [1] }, '1.q'],
  ['layers, empty', { targetModules: ['q_proj'], layersToTransform: [] }, '0.q 1.q 2.q'],
  ['layers pattern', { targetModules: ['q_proj'], layersToTransform: [1], layersPattern: ['layers'] }, '1.q'],
  [
    'layers wrong pattern',
    { targetModules: ['q_proj', 'model.layers.0.mlp.up_proj'], layersToTransform: [1], layersPattern: ['h', 'blocks'] },
    '0.up',
  ],
  ['layers and head', { targetModules: ['q_proj', 'lm_head'], layersToTransform: [1] }, '1.q head'],
  ['saved head', { targetModules: '.*(lm_head|0.self_attn.v_proj)', modulesToSave: ['lm_head'] }, '0.v'],
  ['saved module inside', { targetModules: ['q_proj', 'up_proj'], modulesToSave: ['mlp'] }, '0.q 1.q 2.q'],
  [
    'rank pattern',
    {
      targetModules: ['q_proj', 'v_proj'],
      r: 4,
      loraAlpha: 6,
      rankPattern: { '0.self_attn.q_proj': 2, q_proj: 3 },
      alphaPattern: { 'layers\\.[12]\\..*v_proj': 10, proj: 99 },
    },
    '0.q:2:3 0.v:4:1.5 1.q:3:2 1.v:4:2.5 2.q:3:2 2.v:4:2.5',
  ],
  [
    'rank pattern order',
    { targetModules: ['q_proj'], r: 4, rankPattern: { q_proj: 3, '0.self_attn.q_proj': 2 } },
    '0.q:3:2.66667 1.q:3:2.66667 2.q:3:2.66667',
  ],
  [
    'rank full path, rslora',
    {
      targetModules: ['q_proj'],
      r: 4,
      loraAlpha: 8,
      useRslora: true,
      rankPattern: { '^model.layers.0.self_attn.q_proj': 9, 'elf_attn.q_proj': 5 },
    },
    '0.q:9:2.66667 1.q:4:4 2.q:4:4',
  ],
  [
    'rank alternatives',
    { targetModules: ['q_proj', 'k_proj'], r: 4, loraAlpha: 8, rankPattern: { 'q_proj|1.self_attn.k_proj': 2 } },
    '0.q:2:4 0.k:4:2 1.q:2:4 1.k:2:4 2.q:2:4 2.k:4:2',
  ],
]

it.each(cases)('adapts the modules that PEFT adapts: %s', (_, changes, expected) => {
  const config = { ...plain, ...changes }
  const matched = matchModules(config, llama, { allowUnmatched: true })
  expect(matched.map((path) => describeModule(config, path)).join(' ')).toBe(expected)
})

describe('matchModules refuses', () => {
  const failure = (changes: Partial<LoraConfig>): Error & { hint?: string } => {
    try {
      matchModules({ ...plain, ...changes }, llama)
    } catch (error) {
      return error as Error
    }
    throw new Error('nothing was thrown')
  }

  it('a name that matches nothing, and suggests the nearest', () => {
    const error = failure({ targetModules: ['v_proj', 'q_prj'] })
    expect(error).toMatchObject({ code: 'config', hint: 'Did you mean "q_proj"?' })
    expect(error.message).toBe(
      'targetModules: "q_prj" matches no linear layer of llama ' +
        '(has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head)',
    )
    expect(failure({ targetModules: ['embeddings'] }).hint).toBeUndefined()
  })

  it('a regular expression or a choice of layers that leaves nothing', () => {
    expect(failure({ targetModules: 'q_proj' }).hint).toContain('whole path, such as model.layers.0.self_attn.q_proj')
    expect(failure({ layersToTransform: [7] }).message).toContain('with layersToTransform [7]')
    expect(failure({ excludeModules: ['q_proj'] }).message).toContain('with excludeModules ["q_proj"]')
  })

  it('layers with a regular expression, and a pattern of layers without layers', () => {
    expect(failure({ targetModules: '.*', layersToTransform: [0] }).message).toContain('a list of names')
    expect(failure({ layersPattern: ['layers'] }).message).toContain('needs layersToTransform')
  })

  it('a regular expression that is broken or does not end', () => {
    expect(failure({ targetModules: '(q_proj' }).message).toMatch(/targetModules: "\(q_proj" cannot be used/)
    const endless = failure({ targetModules: '(([a-z0-9._]+)+)+!' })
    expect(endless.message).toContain('timed out')
  })

  it.each<[string, Partial<LoraConfig>, string]>([
    [
      'a rank',
      { rankPattern: { q_proj: 2, qproj: 64 } },
      'rankPattern: "qproj" matches no module that gets an adapter',
    ],
    ['an anchored rank', { rankPattern: { '^q_proj': 2 } }, 'rankPattern: "^q_proj" matches no module'],
    ['a rank for a tensor', { rankPattern: { 'q_proj.weight': 2 } }, 'rankPattern: "q_proj.weight" matches no module'],
    ['an alpha for a module without adapter', { alphaPattern: { k_proj: 2 } }, 'alphaPattern: "k_proj" matches no'],
    ['an excluded name', { excludeModules: ['k_proj', 'qproj'] }, 'excludeModules: "qproj" matches no linear layer'],
    ['an exclusion by expression', { excludeModules: 'qproj' }, 'excludeModules: "qproj" matches no linear layer'],
    ['a layer', { layersToTransform: [0, 99] }, 'layersToTransform: 99 matches no layer'],
  ])('%s that would have no effect', (_, changes, message) => {
    const error = failure(changes)
    expect(error).toMatchObject({ code: 'config', hint: expect.stringMatching(/^There are: /) as string })
    expect(error.message).toContain(message)
  })
})

it('matches a pattern for each of many modules in time', () => {
  const paths = Array.from({ length: 600 }, (_, i) => `model.layers.${i}.self_attn.q_proj`)
  const rankPattern = Object.fromEntries(paths.map((path, i) => [path.replaceAll('.', '\\.'), (i % 16) + 1]))
  const begun = performance.now()
  const ranks = ranksOf({ ...plain, rankPattern }, paths)
  expect([...ranks.values()]).toEqual(paths.map((_, i) => (i % 16) + 1))
  // One at a time it took half a minute.
  expect(performance.now() - begun).toBeLessThan(5000)
})
