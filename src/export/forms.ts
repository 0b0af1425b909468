/*
 * What an export may be, in words; what does it is in `index.ts`, which loads all that computes.
 */

/** Each form in which a result is handed to another program. */
export const exportForms = {
  peft: 'the adapter alone, for Python (PEFT, vLLM)',
  merged: 'the whole model as safetensors, for transformers, vLLM and others',
  gguf: 'the whole model in one GGUF file, for llama.cpp, LM Studio and others',
  'gguf-lora': 'the adapter alone as GGUF, to be put on that of its base (llama.cpp --lora)',
  mlx: 'the adapter alone, for mlx-lm',
  onnx: 'a folder with the whole model as an ONNX graph, for transformers.js and onnxruntime-genai',
  ollama: 'a folder for "ollama create": the whole model as GGUF, and a Modelfile',
} as const

export type ExportForm = keyof typeof exportForms

export const exportNames = Object.keys(exportForms) as [ExportForm, ...ExportForm[]]

/** How numbers of an export may be stored. */
export const exportDtypes = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0'] as const

export type ExportDtype = (typeof exportDtypes)[number]
