import { expect, it } from 'vitest'
import { editJson } from './json-edit.ts'

const text = `{
  "architectures": ["LlamaForCausalLM"],
  "rope_scaling": {
    "factor": 8.0,
    "torch_dtype": "inner, {not this}"
  },
  "rms_norm_eps": 1e-05,
  "torch_dtype" : "bfloat16",
  "quantization_config": {"a": [1, {"b": "}\\""}]},
  "vocab_size": 128256
}`

it('changes the outermost members and leaves all other text alone', () => {
  const edited = editJson(text, { torch_dtype: 'float32', quantization_config: undefined, extra: { a: [1] } })
  expect(edited).toBe(`{
  "architectures": ["LlamaForCausalLM"],
  "rope_scaling": {
    "factor": 8.0,
    "torch_dtype": "inner, {not this}"
  },
  "rms_norm_eps": 1e-05,
  "torch_dtype": "float32",
  "vocab_size": 128256,
  "extra": {
    "a": [
      1
    ]
  }
}
`)
  expect(editJson(edited, {})).toBe(edited)
})

it.each([
  ['{}', { a: 1 }, { a: 1 }],
  ['{"a":1}', { a: undefined }, {}],
  ['{"a":1,"a":2,"b":3}', { a: 4 }, { a: 4, b: 3 }],
  [String.raw`{"a\"b":1,"c\\":"x,y","\u0064":[{},[]]}`, { d: 5 }, { 'a"b': 1, 'c\\': 'x,y', d: 5 }],
  ['[1]', {}, {}],
])('%s with %j', (json, changes, expected) => {
  expect(JSON.parse(editJson(json, changes))).toEqual(expected)
})
