/** How much of everything there is. */
export const sizes = {
  /** Texts of the pretraining corpus. */
  documents: 60000,
  /** Texts that the tokenizer is trained on. */
  tokenizerDocuments: 10000,
  /** Examples of the fine-tuning task. */
  train: 800,
  valid: 80,
  /** The repository carries the weights, so they stay small. */
  modelBytes: 8e6,
} as const

/** config.json of the base model: 2.4 million parameters, one fifth of them embeddings (tied to the head). */
export const modelConfig = {
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  attention_dropout: 0,
  bos_token_id: null,
  eos_token_id: 0,
  hidden_act: 'silu',
  hidden_size: 192,
  initializer_range: 0.04,
  intermediate_size: 512,
  max_position_embeddings: 512,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 6,
  num_hidden_layers: 5,
  num_key_value_heads: 2,
  pad_token_id: 0,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000,
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
  use_cache: true,
  vocab_size: 2496,
} as const

/** How the base model is trained. */
export const pretraining = {
  maxLength: 128,
  perDeviceTrainBatchSize: 16,
  gradientAccumulationSteps: 1,
  maxSteps: 2000,
  learningRate: 4e-3,
  lrSchedulerType: 'cosine',
  warmupSteps: 50,
  weightDecay: 0.05,
  adamBeta2: 0.95,
  maxGradNorm: 1,
  loggingSteps: 50,
  saveStrategy: 'no',
  activations: 'keep',
} as const
