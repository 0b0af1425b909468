"""A tiny GGUF of every architecture, made by the converter of llama.cpp from hub models, for test/golden/gguf-families.test.ts.

    pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 gguf
    python test/golden/make_gguf_families.py LLAMA_CPP       # a checkout of llama.cpp; rewrites gguf/ beside this file

    gguf/<case>.gguf      the file, all weights in f32, without a tokenizer
    gguf/families.json    case -> config (of config.json), tensors [[name, shape]], whose values are those of make_family_golden.py
"""

import json
import logging
import os
import pathlib
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
llama_cpp = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
import gguf  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402
from make_family_golden import PLAIN, fill  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

HERE = pathlib.Path(__file__).parent / "gguf"
SMALL = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=12,
    vocab_size=16, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
)  # fmt: skip
CASES = {
    "llama": dict(
        model_type="llama", attention_bias=True, mlp_bias=True, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=131072, rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    "llama-linear": dict(
        model_type="llama", tie_word_embeddings=True, head_dim=None,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
    ),
    "mistral": dict(model_type="mistral", sliding_window=None, num_attention_heads=4, num_key_value_heads=2, rope_parameters=PLAIN),
    "qwen2": dict(
        model_type="qwen2", head_dim=None,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16},
    ),
    "qwen3": dict(model_type="qwen3", attention_bias=False, tie_word_embeddings=True, rope_parameters=PLAIN),
    "gemma2": dict(
        model_type="gemma2", sliding_window=6, query_pre_attn_scalar=12, attn_logit_softcapping=20.0, final_logit_softcapping=5.0,
        num_hidden_layers=3, rope_parameters=PLAIN, tie_word_embeddings=True,
    ),
    "gemma3": dict(
        model_type="gemma3_text", num_hidden_layers=7, sliding_window=6, query_pre_attn_scalar=12, tie_word_embeddings=True,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
    ),
    "phi3": dict(
        model_type="phi3", head_dim=None, sliding_window=9, original_max_position_embeddings=16, tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.1], "long_factor": [1.5, 2.3], "original_max_position_embeddings": 16,
        },
    ),
    "smollm3": dict(
        model_type="smollm3", num_hidden_layers=5, attention_bias=True, mlp_bias=True, head_dim=None, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5e6},
    ),
    "olmo2": dict(model_type="olmo2", head_dim=None, rope_parameters=PLAIN),
    "granite": dict(
        model_type="granite", head_dim=None, embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.015625,
        logits_scaling=8.0, tie_word_embeddings=True, rope_parameters=PLAIN,
    ),
}  # fmt: skip

logging.disable(logging.WARNING)
HERE.mkdir(exist_ok=True)
about = {}
for case, options in CASES.items():
    config = AutoConfig.for_model(**{k: v for k, v in {**SMALL, **options}.items() if v is not None or k == "sliding_window"})
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        shapes = fill(f"{folder}/model.safetensors", 0 if config.model_type.startswith("gemma") else 1, 1)
        with open(f"{folder}/config.json") as file:
            saved = json.load(file)
        # The converter asks for one to know how many rows of the embedding are real.
        with open(f"{folder}/tokenizer.json", "w") as file:
            json.dump({"model": {"vocab": {str(i): i for i in range(config.vocab_size)}}, "added_tokens": []}, file)
        hparams = ModelBase.load_hparams(pathlib.Path(folder), False)
        converter = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
        converter.set_vocab = lambda self: None
        converter(pathlib.Path(folder), gguf.LlamaFileType.ALL_F32, HERE / f"{case}.gguf", model_name=case).write()
    about[case] = {"config": saved, "tensors": shapes}
    print(case, os.path.getsize(HERE / f"{case}.gguf"))
with open(HERE / "families.json", "w") as file:
    json.dump(about, file)
    file.write("\n")
