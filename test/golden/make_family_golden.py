"""Golden values from PyTorch for every family of decoders, with every option that its config.json has turned on.

    pip install torch==2.13.0 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0
    python test/golden/make_family_golden.py [CASE...]       # rewrites families/ beside this file

Weights, adapters and ids are not stored: they are values of uniform.py, in the order of the sorted names, so that families/<case>.json
holds names and shapes only. Each example is computed by itself, as a batch of one row, in f32 with eager attention.

    <case>.json           config (of config.json), tensors [[name, shape]] of the checkpoint, adapter [[name, shape]], examples
                          [[tokens, labels]] (the last so many are labels), losses of "base" and "adapter" (sum over label tokens / label
                          tokens), curve: ten losses of AdamW on the adapter.
    <case>.safetensors    logits [label tokens, vocab] of the base; base.<name>, adapter.<name>: gradients of the losses.
"""

import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from uniform import uniform

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "families")
EXAMPLES = [(24, 9), (13, 6)]
LEARNING_RATE, STEPS = 5e-3, 10
SMALL = dict(
    hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=12,
    vocab_size=48, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
)  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

CASES = {
    "llama-gelu-yarn": dict(
        model_type="llama", hidden_act="gelu", attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16,
            "beta_fast": 2.0, "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 0.3, "truncate": False,
        },
    ),
    "llama-tanh-linear": dict(
        model_type="llama", hidden_act="gelu_pytorch_tanh", num_attention_heads=4, num_key_value_heads=2,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
    ),
    "mistral": dict(model_type="mistral", sliding_window=7, num_attention_heads=6, num_key_value_heads=2, rope_parameters=PLAIN),
    "qwen2": dict(
        model_type="qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1, head_dim=None, num_attention_heads=3,
        rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    ),
    "qwen2-dynamic": dict(
        model_type="qwen2", head_dim=None, num_key_value_heads=3, max_position_embeddings=16, tie_word_embeddings=True,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    ),
    "qwen3": dict(
        model_type="qwen3", attention_bias=True, use_sliding_window=True, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"], rope_parameters=PLAIN,
    ),
    "gemma2": dict(
        model_type="gemma2", attention_bias=True, sliding_window=6, query_pre_attn_scalar=20, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0, hidden_activation="gelu_pytorch_tanh", rope_parameters=PLAIN, tie_word_embeddings=True,
    ),
    "gemma3": dict(
        model_type="gemma3_text", num_hidden_layers=3, attention_bias=True, sliding_window=6, query_pre_attn_scalar=20,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        final_logit_softcapping=3.0, tie_word_embeddings=True,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        },
    ),
    # The part for texts of a model of images; in transformers 5 it is one of the models that AutoModelForCausalLM loads.
    "gemma3-images": dict(
        model_type="gemma3", mm_tokens_per_image=1, image_token_index=47, boi_token_index=45, eoi_token_index=46,
        text_config={
            **SMALL, "num_hidden_layers": 3, "sliding_window": 6, "query_pre_attn_scalar": 20, "tie_word_embeddings": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "final_logit_softcapping": 3.0,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
            },
        },
        vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
        ),
    ),
    "phi3": dict(
        model_type="phi3", num_attention_heads=3, num_key_value_heads=1, head_dim=None, hidden_size=48, sliding_window=9,
        original_max_position_embeddings=16, tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 3.0, 4.0],
        },
    ),
    "phi3-plain": dict(model_type="phi3", head_dim=None, num_key_value_heads=3, rope_parameters=PLAIN),
    "smollm3": dict(
        model_type="smollm3", num_hidden_layers=3, attention_bias=True, mlp_bias=True, head_dim=None, no_rope_layers=[1, 0, 1],
        use_sliding_window=True, sliding_window=5, tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "olmo2": dict(model_type="olmo2", attention_bias=True, head_dim=None, rope_parameters=PLAIN),
    "granite": dict(
        model_type="granite", attention_bias=True, mlp_bias=True, head_dim=None, embedding_multiplier=5.0, residual_multiplier=0.4,
        attention_multiplier=0.2, logits_scaling=3.0, tie_word_embeddings=True, rope_parameters=PLAIN,
    ),
}  # fmt: skip


def values(name, shape, salt, offset):
    """Weights far from the usual small start: attention is not flat, biases and norms matter."""
    x = torch.from_numpy(uniform(int(torch.tensor(shape).prod()), salt)).reshape(shape)
    if name.endswith("norm.weight"):
        return offset + 0.6 * x
    if name.endswith("bias") or "embed_tokens" in name or "lm_head" in name:
        return 0.8 * x
    if ".lora_" in name:
        return (3 if "lora_A" in name else 1) * x / shape[1] ** 0.5
    return 5 * x / (shape[1] if len(shape) > 1 else 1) ** 0.5


def fill(path, offset, salt):
    """Replaces the values of a safetensors file; returns its names and shapes."""
    shapes = sorted((name, list(tensor.shape)) for name, tensor in load_file(path).items())
    tensors = {name: values(name, shape, salt + i, offset).contiguous() for i, (name, shape) in enumerate(shapes)}
    save_file(tensors, path, {"format": "pt"})
    return shapes


def examples(vocab):
    ids = [[1, *(3 + (uniform(n - 2, 900 + i) + 0.5) * (vocab - 3)).astype(int).tolist(), 2] for i, (n, _) in enumerate(EXAMPLES)]
    return [(torch.tensor([row]), n - labels) for row, (n, labels) in zip(ids, EXAMPLES)]


def loss_of(model, data):
    """(loss a label token, logits at the positions that predict a label)."""
    rows, targets = [], []
    for ids, start in data:
        rows.append(model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1])
        targets.append(ids[0, start:])
    logits = torch.cat(rows)
    return cross_entropy(logits, torch.cat(targets)), logits


def gradients(model, data, rename=lambda name: name):
    loss, logits = loss_of(model, data)
    model.zero_grad()
    loss.backward()
    grads = {rename(name): p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), logits.detach(), grads


def targets_of(config):
    """All linear layers of the part for texts: of a model of images, names alone would mean those of the images too."""
    return r".*\.language_model\..*_proj" if "vision_config" in config.to_dict() else "all-linear"


def make(case, options):
    sizes = {} if "text_config" in options else SMALL
    config = AutoConfig.for_model(**{**{k: v for k, v in {**sizes, **options}.items() if v is not None}})
    offset = 0 if config.model_type.startswith("gemma") else 1
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        shapes = fill(f"{folder}/model.safetensors", offset, 1)
        load = lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        with open(f"{folder}/config.json") as file:
            saved = json.load(file)
        data = examples(config.get_text_config().vocab_size)
        base_loss, logits, base = gradients(load(), data)
        adapter_folder = f"{folder}/adapter"
        lora = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=targets_of(config))
        get_peft_model(load(), lora).save_pretrained(adapter_folder)
        adapter_shapes = fill(f"{adapter_folder}/adapter_model.safetensors", offset, 500)
        load_adapter = lambda: PeftModel.from_pretrained(load(), adapter_folder, is_trainable=True)
        rename = lambda name: name.replace(".default.", ".")
        adapter_loss, _, adapter = gradients(load_adapter(), data, rename)
        model = load_adapter()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0)
        curve = []
        for _ in range(STEPS):
            loss, _ = loss_of(model, data)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    about = {
        "versions": {"torch": torch.__version__, "transformers": __import__("transformers").__version__},
        "config": saved, "tensors": shapes, "adapter": adapter_shapes,
        "examples": [[ids[0].tolist(), len(ids[0]) - start] for ids, start in data],
        "losses": {"base": base_loss, "adapter": adapter_loss}, "learningRate": LEARNING_RATE, "curve": curve,
    }  # fmt: skip
    with open(f"{HERE}/{case}.json", "w") as file:
        json.dump(about, file)
        file.write("\n")
    tensors = {"logits": logits, **{f"base.{n}": g for n, g in base.items()}, **{f"adapter.{n}": g for n, g in adapter.items()}}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, f"{HERE}/{case}.safetensors")
    print(f"{case}: loss {base_loss:.4f}, with adapter {adapter_loss:.4f}, after {STEPS} steps {curve[-1]:.4f}")


def main():
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    os.makedirs(HERE, exist_ok=True)
    for case in sys.argv[1:] or CASES:
        make(case, CASES[case])


if __name__ == "__main__":
    main()
