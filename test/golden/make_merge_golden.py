"""Weights that PEFT merges, for the models of make_golden.py, after which this is run.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0
    python test/golden/make_merge_golden.py        # rewrites merge/ beside this file

    merge/<model>/<adapter>/    adapters with random A and B, as PEFT saves them, that make_golden.py has not
    merge/golden.json           versions; per case its model, the adapters with their weights, the logits' tokens, and whether the
                                merged model is tied
    merge/golden.safetensors    f32: <case>.<name>, each weight that merge_and_unload changes; <case>.logits [tokens, vocab] of the
                                model with adapters that are not merged

Several adapters are put together by add_weighted_adapter with combination_type "cat", which is the sum of their products; the
cases "linear" show that this name stands for something else there: (sum of A) times (sum of B), with products of one adapter's A
with the other's B. It wants all of them in every layer; in the case "subtracted" both are active at once, with their scalings multiplied.

A tied head with an adapter: PEFT adds to the weight that the embedding shares, so that a merged model is another one than the
unmerged. What is kept is the head that merge_and_unload makes, and the embedding of the base, which is what the unmerged one has.
"""

import json
import os
import shutil

import torch
import transformers
from make_golden import CASES, load_base, trainables, versions, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

ADAPTERS = {
    "gqa-tied": {
        "patterns": dict(
            r=3, lora_alpha=5, target_modules=["q_proj", "k_proj", "down_proj"], layers_to_transform=[0, 2], use_rslora=True,
            rank_pattern={r"layers\.2\..*q_proj": 5, "down_proj": 1}, alpha_pattern={"k_proj": 9, r"layers\.0\..*q_proj": 2},
        ),
        "fan-in": dict(r=2, lora_alpha=3, target_modules=["v_proj", "gate_proj"], fan_in_fan_out=True),
        "head": dict(r=2, lora_alpha=4, target_modules=["q_proj", "lm_head"]),
        "embedding": dict(r=2, lora_alpha=4, target_modules=["o_proj"], modules_to_save=["embed_tokens"]),
        "other": dict(r=5, lora_alpha=3, target_modules=["q_proj", "o_proj"], use_rslora=True),
    },
    "bias-untied": {
        "lora-only": dict(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], bias="lora_only"),
        "saved": dict(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["lm_head", "norm"]),
    },
}  # fmt: skip

# Adapters by where they are below this folder, each with its weight.
CASES_OF = {
    "plain": ("gqa-tied", {"gqa-tied/adapter": 1}),
    "saved-head": ("gqa-tied", {"gqa-tied/adapter-saved-head": 1}),
    "rslora-bias-all": ("bias-untied", {"bias-untied/adapter": 1}),
    "patterns": ("gqa-tied", {"merge/gqa-tied/patterns": 1}),
    "fan-in": ("gqa-tied", {"merge/gqa-tied/fan-in": 1}),
    "head": ("gqa-tied", {"merge/gqa-tied/head": 1}),
    "embedding": ("gqa-tied", {"merge/gqa-tied/embedding": 1}),
    "lora-only": ("bias-untied", {"merge/bias-untied/lora-only": 1}),
    "saved": ("bias-untied", {"merge/bias-untied/saved": 1}),
    "two": ("gqa-tied", {"gqa-tied/adapter": 1, "merge/gqa-tied/other": 0.5}),
    "subtracted": ("gqa-tied", {"gqa-tied/adapter": 1.25, "merge/gqa-tied/patterns": -0.75}),
}


def make_adapter(folder, options, path):
    model = get_peft_model(load_base(folder), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, p in trainables(model).items():
            if "lora_A" in name:
                p.copy_(p.shape[1] ** -0.5 * torch.randn_like(p))
            elif "lora_B" in name:
                p.copy_(0.15 * torch.randn_like(p))
            else:
                p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(path)
    os.remove(f"{path}/README.md")
    if options.get("fan_in_fan_out"):  # PEFT sets it to false for nn.Linear, before saving: a file may have it still
        with open(f"{path}/adapter_config.json") as file:
            config = json.load(file)
        write_json(f"{path}/adapter_config.json", {**config, "fan_in_fan_out": True})


def load(folder, adapters, kind):
    (first, weight), *others = adapters.items()
    model = PeftModel.from_pretrained(load_base(folder), first, adapter_name="0")
    if not others and weight == 1:
        return model
    for i, (path, _) in enumerate(others):
        model.load_adapter(path, adapter_name=str(i + 1))
    names = [str(i) for i in range(len(adapters))]
    if kind == "active":
        for layer in model.modules():
            if hasattr(layer, "lora_A"):
                for name, weight in zip(names, adapters.values()):
                    if name in layer.scaling:
                        layer.scaling[name] *= weight
        model.base_model.set_adapter(names)
        return model
    model.add_weighted_adapter(names, list(adapters.values()), "sum", combination_type=kind)
    model.set_adapter("sum")
    return model


def head_of(model):
    """The head that merging makes where it is adapted and tied: here the embedding becomes the same."""
    head = model.base_model.model.lm_head
    return None if not hasattr(head, "lora_A") else head.base_layer.weight + head.get_delta_weight(head.active_adapters[0])


@torch.no_grad()
def make_case(case, folder, adapters, tensors, kind="cat"):
    base = dict(load_base(folder).named_parameters())
    tied = load_base(folder).config.tie_word_embeddings
    model = load(folder, adapters, kind)
    ids = torch.arange(3, 3 + 24)[None]
    tensors[f"{case}.logits"] = model(input_ids=ids).logits[0].clone()
    head = head_of(model) if tied else None
    merged = model.merge_and_unload(adapter_names=model.base_model.active_adapters)
    weights = dict(merged.named_parameters())
    separate = "lm_head.weight" in weights and tied
    if head is not None:
        assert torch.equal(merged.lm_head.weight, head)
        weights["lm_head.weight"], separate = head, True
        weights["model.embed_tokens.weight"] = base["model.embed_tokens.weight"]
    for name, p in weights.items():
        before = base.get(name, base["model.embed_tokens.weight"] if name == "lm_head.weight" else None)
        if not torch.equal(p, before):
            tensors[f"{case}.{name}"] = p.detach().clone().contiguous()
    return {"model": folder, "adapters": adapters, "ids": ids[0].tolist(), "tied": tied and not separate}


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    torch.manual_seed(4321)
    shutil.rmtree("merge", ignore_errors=True)
    for folder, adapters in ADAPTERS.items():
        for name, options in adapters.items():
            make_adapter(folder, options, f"merge/{folder}/{name}")
    tensors, cases = {}, {}
    for case, (folder, adapters) in CASES_OF.items():
        cases[case] = make_case(case, folder, adapters, tensors, kind="active" if case == "subtracted" else "cat")
    same_rank = {"gqa-tied/adapter": 1, "merge/gqa-tied/same-rank": 0.5}
    make_adapter("gqa-tied", dict(r=4, lora_alpha=3, target_modules=["q_proj"]), "merge/gqa-tied/same-rank")
    cases["linear"] = make_case("linear", "gqa-tied", same_rank, tensors, kind="linear")
    write_json("merge/golden.json", {**versions(), "cases": cases})
    save_file(tensors, "merge/golden.safetensors")


if __name__ == "__main__":
    main()
