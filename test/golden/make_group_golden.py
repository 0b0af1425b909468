"""Parameter groups of transformers' Trainer and of PEFT's LoRA+ for the models of make_golden.py, after which this is run.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate
    python test/golden/make_group_golden.py        # rewrites groups/golden.json beside this file

    groups/golden.json    versions, learning rate, weight decay and ratio; per <model>/<adapter or "base"> the trained parameters by
                          their names in files, each with its shape and [learning rate, weight decay], as "trainer" gives them and
                          as "loraplus" does

One difference is by intent and not among the cases: PEFT's LoRA+ lets the weights of RMS norms decay, where Trainer does not.
"""

import json
import os
import re

import torch
import transformers
from make_golden import CASES, load_adapter, load_base, saved_name, versions
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer, TrainingArguments

RATE, DECAY, RATIO = 1e-3, 0.1, 16


def groups(model, optimizer):
    names = {id(p): saved_name(n).replace(".base_layer.", ".") for n, p in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            found[names[id(p)]] = {"shape": list(p.shape), "group": [group["lr"], group["weight_decay"]]}
    return dict(sorted(found.items()))


def of_trainer(model):
    args = TrainingArguments("/tmp/unused", learning_rate=RATE, weight_decay=DECAY, use_cpu=True, report_to="none")
    return groups(model, Trainer(model=model, args=args).create_optimizer())


def of_loraplus(model):
    return groups(
        model,
        create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=RATIO, loraplus_weight_decay=DECAY),
    )


def saving_embedding(folder):
    """Modules trained in full: among them a norm, for Trainer, and the embedding."""
    config = LoraConfig(task_type="CAUSAL_LM", modules_to_save=["embed_tokens", "norm", "post_attention_layernorm"])
    return get_peft_model(load_base(folder), config)


def main():
    transformers.utils.logging.disable_progress_bar()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    found = {}
    for folder, case in CASES.items():
        found[f"{folder}/base"] = {"trainer": of_trainer(load_base(folder))}
        for name in case["adapters"]:
            model = load_adapter(folder, name)
            found[f"{folder}/{name}"] = {"trainer": of_trainer(model), "loraplus": of_loraplus(model)}
        found[f"{folder}/saved modules"] = {"trainer": of_trainer(saving_embedding(folder))}
    os.makedirs("groups", exist_ok=True)
    golden = {**versions(), "rate": RATE, "decay": DECAY, "ratio": RATIO, "models": found}
    with open("groups/golden.json", "w") as f:
        text = json.dumps(golden, indent=1)
        # A parameter a line.
        f.write(re.sub(r"\{\s+\"shape\".*?\}", lambda m: re.sub(r"\s+", " ", m[0]), text, flags=re.DOTALL))
        f.write("\n")


main()
