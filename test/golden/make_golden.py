"""Golden values from PyTorch for the tests of the model, the adapters and the trainer (which need no Python).

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0
    python test/golden/make_golden.py        # rewrites gqa-tied/, bias-untied/ and rope/ beside this file

Two tiny random Llamas as they would come from the hub, in f32 on the CPU with eager attention:

    gqa-tied     grouped-query attention, explicit head_dim with heads * head_dim != hidden, tied head, f32 file
    bias-untied  a bias in every linear layer, separate head, llama3 rope scaling, bf16 file (the golden values come from
                 the rounded weights, upcast)

Each <case>/ holds config.json, model.safetensors, PEFT adapters with random A and B, inputs.json, golden.json (scalars and
curves) and golden.safetensors (f32). golden.json starts with the versions used and the seed.

    inputs.json           {padTokenId, batches: [[{ids, labelMask}]]}: labelMask[t] = 1 where token t is predicted (from
                          the logits of position t - 1). The labels are a suffix of each row.
    golden.json           per run ("base" is the model without an adapter): loss (sum over label tokens / label tokens),
                          labelTokens, tokenAccuracy, both batches; curves of 20 steps: loss, gradNorm (before clipping), lr.
    golden.safetensors    <run>.logits [label tokens, vocab], rows in the order of batch 0; <run>.grad.<name>, the
                          gradient of batch 0's loss; <run>.final.<name>, trained parameters after curve <run> (adapters).

Names are those of the files: of the checkpoint for "base", of adapter_model.safetensors for an adapter. The gradient of the
tied embedding is the sum of its two uses. Curves whose name ends in "-matrix-decay" leave biases and norm weights out of the
weight decay, as transformers' Trainer does; the others are one AdamW group. A run without such parameters has one curve.

modules_to_save on a tied head (the run "adapter-saved-head"): PEFT deep-copies lm_head, which unties it. The copy trains and is
saved as base_model.model.lm_head.weight [vocab, hidden]; embed_tokens keeps the base values and stays frozen. PEFT warns
unless ensure_weight_tying is set (left at false here). On loading the head comes from the adapter, the embedding from the base.
"""

import json
import os
import platform
import shutil
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT would look the base model up on the hub
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, get_linear_schedule_with_warmup
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SEED = 1234
STEPS, WARMUP, MAX_NORM = 20, 3, 1.0
ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}

CASES = {
    "gqa-tied": {
        "dtype": torch.float32,
        "config": dict(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, head_dim=16,
            intermediate_size=160, vocab_size=288, tie_word_embeddings=True, rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, max_position_embeddings=128,
        ),
        # Per row: tokens, and how many of the last ones are labels.
        "rows": [[(23, 9), (9, 1), (31, 14), (16, 15)], [(12, 4), (27, 20), (8, 7), (19, 3)]],
        "adapters": {
            "adapter": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
            "adapter-saved-head": dict(
                r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], layers_to_transform=[1, 2], modules_to_save=["lm_head"]
            ),
        },
    },
    "bias-untied": {
        "dtype": torch.bfloat16,
        "config": dict(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=112,
            vocab_size=256, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-6,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
            },
            max_position_embeddings=512,
        ),
        "rows": [[(140, 24), (37, 10), (90, 30), (5, 2)], [(61, 20), (120, 6), (3, 1), (44, 43)]],
        "adapters": {
            "adapter": dict(
                r=4, lora_alpha=4, target_modules="all-linear", bias="all", use_rslora=True,
                rank_pattern={"layers.1.self_attn.o_proj": 6}, alpha_pattern={"layers.1.self_attn.o_proj": 3},
            ),
        },
    },
}  # fmt: skip

ROPE = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": CASES["bias-untied"]["config"]["rope_parameters"],
    # As in Llama 3.2 1B.
    "llama3-large": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
ROPE_HEAD_DIM = {"default": 16, "linear": 16, "llama3": 12, "llama3-large": 64}
ROPE_POSITIONS = [*range(16), 100, 1000, 8000]


def randomize(model):
    """Random weights far from the usual small init: attention is not flat, logits are not uniform, biases and norms matter."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif "embed_tokens" in name or "lm_head" in name:
                p.copy_(0.25 * torch.randn_like(p))
            else:
                p.copy_(1.5 * p.shape[1] ** -0.5 * torch.randn_like(p))


def make_inputs(model, rows):
    """Random ids (0 to 2 are kept for pad, bos and eos) from bos to eos. Every second label is the model's own guess."""
    def example(length, labels):
        ids = [1, *torch.randint(3, model.config.vocab_size, (length - 2,)).tolist(), 2]
        for t in range(length - labels, length - 1, 2):
            ids[t] = model(torch.tensor([ids[:t]])).logits[0, -1].argmax().item()
        return {"ids": ids, "labelMask": [0] * (length - labels) + [1] * labels}

    with torch.no_grad():
        return [[example(*row) for row in batch] for batch in rows]


def collate(examples, pad=0):
    """Right-padded (ids, attention mask, labels), each [rows, longest]; -100 where there is no label."""
    width = max(len(e["ids"]) for e in examples)
    fill = lambda values, value: values + [value] * (width - len(values))
    ids = torch.tensor([fill(e["ids"], pad) for e in examples])
    attention = torch.tensor([fill([1] * len(e["ids"]), 0) for e in examples])
    labels = [[i if m else -100 for i, m in zip(e["ids"], e["labelMask"])] for e in examples]
    return ids, attention, torch.tensor([fill(row, -100) for row in labels])


def forward(model, examples):
    """Logits at the positions that predict a label, [label tokens, vocab], and the labels."""
    ids, attention, labels = collate(examples)
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    keep = labels[:, 1:] != -100
    return logits[keep], labels[:, 1:][keep]


def saved_name(name):
    """The name a trainable parameter has in adapter_model.safetensors (or in the checkpoint, where there is no adapter)."""
    return name.replace(".modules_to_save.default.", ".").replace(".default.", ".")


def trainables(model):
    return {saved_name(n): p for n, p in model.named_parameters() if p.requires_grad}


def measure(model, batches, prefix, tensors):
    """Logits and gradients of batch 0 into `tensors`; returns the scalars of both batches."""
    scalars = []
    for index, batch in enumerate(batches):
        logits, labels = forward(model, batch)
        loss = cross_entropy(logits, labels)
        scalars.append({
            "loss": loss.item(),
            "labelTokens": len(labels),
            "tokenAccuracy": (logits.argmax(-1) == labels).float().mean().item(),
        })  # fmt: skip
        if index == 0:
            model.zero_grad()
            loss.backward()
            tensors[f"{prefix}.logits"] = logits.detach()
            tensors.update({f"{prefix}.grad.{n}": p.grad.clone() for n, p in trainables(model).items()})
    return scalars


def undecayed(params):
    """The parameters that transformers' Trainer keeps out of the weight decay."""
    return {n for n in params if n.endswith(("norm.weight", "bias"))}


def train(model, batches, lr, bare=()):
    """A curve of STEPS optimizer steps, alternating between the batches; parameters named in `bare` do not decay."""
    params = trainables(model)
    decaying = {"params": [p for n, p in params.items() if n not in bare]}
    others = {"params": [params[n] for n in bare], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decaying, others] if bare else [decaying], lr=lr, **ADAMW)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    curve = {"learningRate": lr, "loss": [], "gradNorm": [], "lr": []}
    for step in range(STEPS):
        logits, labels = forward(model, batches[step % len(batches)])
        loss = cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        curve["loss"].append(loss.item())
        curve["gradNorm"].append(torch.nn.utils.clip_grad_norm_(params.values(), MAX_NORM).item())
        curve["lr"].append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return curve


def load_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def load_adapter(folder, name):
    return PeftModel.from_pretrained(load_base(folder), f"{folder}/{name}", is_trainable=True)


def make_adapter(folder, name, options):
    """A PEFT adapter folder with random A and B (and a shifted copy of saved modules), as save_pretrained writes it."""
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options)
    model = get_peft_model(load_base(folder), config)
    with torch.no_grad():
        for n, p in trainables(model).items():
            if "lora_A" in n:
                p.copy_(p.shape[1] ** -0.5 * torch.randn_like(p))
            elif "lora_B" in n:
                p.copy_(0.15 * torch.randn_like(p))
            else:
                p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(f"{folder}/{name}")
    os.remove(f"{folder}/{name}/README.md")
    saved = load_file(f"{folder}/{name}/adapter_model.safetensors")
    assert set(saved) == set(trainables(model)), set(saved) ^ set(trainables(model))


def versions():
    return {
        "seed": SEED, "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def make_case(folder, case):
    model = LlamaForCausalLM(LlamaConfig(pad_token_id=0, bos_token_id=1, eos_token_id=2, **case["config"]))
    randomize(model)
    model.to(case["dtype"]).save_pretrained(folder)
    batches = make_inputs(load_base(folder), case["rows"])
    write_json(f"{folder}/inputs.json", {"padTokenId": 0, "batches": batches})
    for name, options in case["adapters"].items():
        make_adapter(folder, name, options)

    loaders = {"base": lambda: load_base(folder)}
    loaders.update({name: lambda name=name: load_adapter(folder, name) for name in case["adapters"]})
    tensors, runs, curves = {}, {}, {}
    for run, load in loaders.items():
        runs[run] = measure(load(), batches, run, tensors)
        model, lr = load(), 3e-3 if run == "base" else 5e-3
        curves[run] = train(model, batches, lr)
        if run != "base":
            tensors.update({f"{run}.final.{n}": p.detach() for n, p in trainables(model).items()})
        model = load()
        if bare := undecayed(trainables(model)):
            curves[f"{run}-matrix-decay"] = train(model, batches, lr, sorted(bare))
    optimizer = {"steps": STEPS, "warmupSteps": WARMUP, "maxGradNorm": MAX_NORM, **ADAMW}
    write_json(f"{folder}/golden.json", {**versions(), "optimizer": optimizer, "runs": runs, "curves": curves})
    save_file({n: t.contiguous() for n, t in tensors.items()}, f"{folder}/golden.safetensors")


def make_rope(folder):
    """cos and sin tables, [positions, head_dim] (the two halves are equal), and inv_freq [head_dim / 2]."""
    tensors = {}
    for name, parameters in ROPE.items():
        config = LlamaConfig(head_dim=ROPE_HEAD_DIM[name], rope_parameters=dict(parameters), max_position_embeddings=131072)
        rope = LlamaRotaryEmbedding(config)
        cos, sin = rope(torch.zeros(1), torch.tensor([ROPE_POSITIONS]))
        tensors.update({f"{name}.cos": cos[0], f"{name}.sin": sin[0], f"{name}.inv_freq": rope.inv_freq})
    os.makedirs(folder)
    save_file({n: t.clone().contiguous() for n, t in tensors.items()}, f"{folder}/golden.safetensors")
    cases = {name: {"headDim": ROPE_HEAD_DIM[name], "ropeParameters": ROPE[name]} for name in ROPE}
    write_json(f"{folder}/golden.json", {**versions(), "positions": ROPE_POSITIONS, "cases": cases})


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    os.chdir(os.path.dirname(os.path.abspath(sys.argv[0])))
    for folder, case in CASES.items():
        torch.manual_seed(SEED)
        shutil.rmtree(folder, ignore_errors=True)
        make_case(folder, case)
    shutil.rmtree("rope", ignore_errors=True)
    make_rope("rope")


if __name__ == "__main__":
    main()
