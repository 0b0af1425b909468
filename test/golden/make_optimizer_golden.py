"""Golden values from PyTorch and bitsandbytes for the optimizers of src/train (the tests need no Python).

    pip install torch==2.13.0 bitsandbytes==0.50.2 safetensors==0.8.0
    python test/golden/make_optimizer_golden.py        # rewrites optimizer/ beside this file

    optimizer/golden.json          versions, hyperparameters, the tensors, SHA-256 of 8-bit states after steps 1, 2, 5 and 20, SGD's variants
    optimizer/golden.safetensors   <optimizer>.<tensor>: the weights after STEPS updates; <variant of SGD>.<tensor>: every SGD_STRIDE-th of them

Optimizers are torch.optim.AdamW ("adamw"), torch.optim.SGD and bitsandbytes.optim.AdamW8bit ("adamw-8bit", its CPU kernel), the last with
the embedding's state in 32 bits (an override that transformers' Trainer gives bitsandbytes), all without weight decay on biases and norms.
Weights, gradients and learning rates are formulas of element and step: see `weights`, `gradients` and `rate`.
"""

import hashlib
import json
import os
import platform

import bitsandbytes
import numpy as np
import torch
from bitsandbytes.optim import AdamW8bit, GlobalOptimManager
from safetensors.torch import save_file
from uniform import uniform

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "optimizer")
STEPS, CHECKED = 20, (1, 2, 5, 20)
OPTIONS = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
SGD = {
    "sgd": {},
    "sgd-momentum": {"momentum": 0.9},
    "sgd-dampening": {"momentum": 0.9, "dampening": 0.3},
    "sgd-nesterov": {"momentum": 0.9, "nesterov": True},
}
SGD_STRIDE = 7
SHAPES = {
    "layers.0.mlp.up_proj.weight": (71, 73),  # the last block has 63 weights
    "layers.0.mlp.down_proj.weight": (64, 64),  # the smallest in 8 bits
    "layers.0.self_attn.q_proj.weight": (63, 65),  # one too small
    "layers.0.mlp.up_proj.bias": (4200,),
    "norm.weight": (100,),
    "model.embed_tokens.weight": (50, 90),
}


def weights(count, index):
    return uniform(count, 1000 + index)


def gradients(count, index, step):
    """Blocks 5, 12, ... have magnitudes over many binades, blocks 3, 10, ... are zero until step 3, elements 11, 42, ... are always zero."""
    g, i = uniform(count, 100 * index + step), np.arange(count)
    block = i // 256
    g = np.where(block % 7 == 5, g * np.exp2(-(i % 24)).astype(np.float32), g)
    return np.where(((block % 7 == 3) & (step < 3)) | (i % 31 == 11), np.float32(0), g)


def rate(step):
    return 0.01 / step


def run(name):
    parameters = {n: torch.nn.Parameter(torch.from_numpy(weights(np.prod(s), i)).view(s)) for i, (n, s) in enumerate(SHAPES.items())}
    bare = [p for n, p in parameters.items() if n.endswith(("bias", "norm.weight"))]
    decaying = [p for n, p in parameters.items() if not n.endswith(("bias", "norm.weight"))]
    groups = [{"params": decaying}, {"params": bare, "weight_decay": 0.0}]
    if name in SGD:
        optimizer = torch.optim.SGD(groups, lr=1.0, weight_decay=OPTIONS["weight_decay"], **SGD[name])
    else:
        make = torch.optim.AdamW if name == "adamw" else AdamW8bit
        optimizer = make(groups, lr=1.0, **OPTIONS)
    if name == "adamw-8bit":
        GlobalOptimManager.get_instance().override_config(parameters["model.embed_tokens.weight"], "optim_bits", 32)
    digests = {}
    for step in range(1, STEPS + 1):
        for i, p in enumerate(parameters.values()):
            p.grad = torch.from_numpy(gradients(p.numel(), i, step)).view(p.shape)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        if step not in CHECKED:
            continue
        for n, p in parameters.items():
            state = optimizer.state[p]
            for part in ("state1", "absmax1", "state2", "absmax2"):
                if "absmax1" in state:
                    digest = hashlib.sha256(state[part].numpy().tobytes()).hexdigest()
                    digests.setdefault(f"{n}.{part}", {})[step] = digest
    return {f"{name}.{n}": p.detach().contiguous() for n, p in parameters.items()}, digests


def main():
    torch.set_num_threads(1)
    os.makedirs(OUT, exist_ok=True)
    tensors, digests = run("adamw")
    assert not digests
    packed, digests = run("adamw-8bit")
    tensors |= packed
    for variant in SGD:
        moved, digests_of_sgd = run(variant)
        assert not digests_of_sgd
        tensors |= {n: t.view(-1)[::SGD_STRIDE].contiguous() for n, t in moved.items()}
    save_file(tensors, os.path.join(OUT, "golden.safetensors"))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "bitsandbytes": bitsandbytes.__version__}
    golden = {"versions": versions, "steps": STEPS, **OPTIONS, "shapes": SHAPES, "digests": digests, "sgd": SGD, "sgd_stride": SGD_STRIDE}
    with open(os.path.join(OUT, "golden.json"), "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


main()
