"""Golden values of generation from transformers and PEFT: what the tiny models of families/ continue a prompt with, and logits processors.

    pip install torch==2.13.0 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0
    python test/golden/make_generation_golden.py        # rewrites generation/ beside this file

    generation/decoders.json           versions; cases: {family case: {"base": ids, "adapter": ids}}, the tokens that follow the first
                                       `prompt` ones of the first example, greedily; the models and adapters are those of families/
    generation/decoders.safetensors    <case>.<run>: the logits [new tokens, vocab] that each was taken from
    generation/embeddings.safetensors  <case>.<run>: the mean of last_hidden_state over the positions of the first five tokens of the first
                                       example, of all of it and of the second one, each of length 1, [3, hidden]
    generation/samplers.json           cases: logits, prompt and made tokens, options as GenerationConfig calls them, and the processed
                                       logits (null: minus infinity)

Prompts end before the windows and lengths at which something changes, and what follows goes beyond them: a cache has to follow suit.
The processors are those that `generate` makes of a GenerationConfig, in its order; presence and frequency penalties, which it does not
have, are computed as OpenAI's documentation of its API says.
"""

import json
import math
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
import transformers
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from make_family_golden import HERE as FAMILIES
from make_family_golden import values
from uniform import uniform

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "generation")
PROMPT, NEW = 10, 14


def write(path, shapes, salt, offset):
    save_file({name: values(name, shape, salt + i, offset).contiguous() for i, (name, shape) in enumerate(shapes)}, path, {"format": "pt"})


EMBEDDED = [(0, 5), (0, None), (1, None)]


def decoder(case):
    with open(f"{FAMILIES}/{case}.json") as file:
        golden = json.load(file)
    offset = 0 if golden["config"]["model_type"].startswith("gemma") else 1
    prompt = torch.tensor([golden["examples"][0][0][:PROMPT]])
    texts = [golden["examples"][example][0][:end] for example, end in EMBEDDED]
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/config.json", "w") as file:
            json.dump(golden["config"], file)
        write(f"{folder}/model.safetensors", golden["tensors"], 1, offset)
        os.makedirs(f"{folder}/adapter")
        targets = r".*\.language_model\..*_proj" if "vision_config" in golden["config"] else "all-linear"
        with open(f"{folder}/adapter/adapter_config.json", "w") as file:
            json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": targets}, file)
        write(f"{folder}/adapter/adapter_model.safetensors", golden["adapter"], 500, offset)
        load = lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        return {run: (*generate(model, prompt), torch.stack([embed(model, ids) for ids in texts])) for run, model in
                (("base", load()), ("adapter", PeftModel.from_pretrained(load(), f"{folder}/adapter")))}  # fmt: skip


@torch.no_grad()
def generate(model, prompt):
    model.generation_config.eos_token_id = None
    out = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return out.sequences[0, PROMPT:].tolist(), torch.cat(out.logits)


@torch.no_grad()
def embed(model, ids):
    """The last hidden state, as sentence-transformers pools it with `pooling_mode_mean_tokens` and normalizes it."""
    states = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states[-1][0]
    mean = states.mean(0)
    return mean / mean.norm()


def processed(logits, prompt, made, options):
    """Logits as `generate` changes them; penalties of OpenAI's API follow that for repetition."""
    options = dict(options)
    presence, frequency = options.pop("presence_penalty", 0), options.pop("frequency_penalty", 0)
    bias = options.pop("logit_bias", None)
    if bias:
        options["sequence_bias"] = [[[int(id)], value] for id, value in bias.items()]
    if not options.get("do_sample"):
        options = {name: value for name, value in options.items() if name not in ("temperature", "top_k", "top_p", "min_p")}
    config = GenerationConfig(**{"top_k": 0, **options})
    size = len(logits)
    shape = dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=max(size, 2), **shape))
    model._prepare_special_tokens(config, device="cpu")
    ids = torch.tensor([prompt + made])
    found = model._get_logits_processor(generation_config=config, input_ids_seq_length=len(prompt))
    warpers = ("Temperature", "TopK", "TopP", "MinP")
    scores = torch.tensor([logits])
    penalized = False
    for one in [*found, None]:
        if not penalized and (one is None or type(one).__name__.startswith(warpers)):
            counts = torch.bincount(torch.tensor(made, dtype=torch.long), minlength=size)[:size].float()
            if presence or frequency:
                scores = scores - frequency * counts - presence * (counts > 0)
            penalized = True
        if one is not None:
            scores = one(ids, scores)
    return short(scores[0].tolist())


def short(numbers):
    """With as few digits as tell an f32; null for minus infinity."""
    return [None if math.isinf(x) else float(str(np.float32(x))) for x in numbers]


def sampler_cases():
    sizes = {"plain": 40, "one": 1, "two": 2, "three": 3}
    vectors = {name: short((12 * uniform(size, 77 + i)).tolist()) for i, (name, size) in enumerate(sizes.items())}
    vectors["ties"] = [float(round(4 * x)) for x in uniform(24, 5).tolist()]
    vectors["equal"] = [1.5] * 8
    vectors["peaked"] = short([30.0, *(-20 * (uniform(15, 9) + 0.5)).tolist()])
    vectors["large"] = short((12 * uniform(300, 33)).tolist())
    prompt, made = [1, 3, 3, 7], [5, 0, 5, 9, 5, 2]

    def case(name, **options):
        size = len(vectors[name])
        tokens = [[id for id in ids if id < size] for ids in (prompt, made)]
        # Without a prompt transformers has no tokens to look at.
        tokens[0] = tokens[0] or [0]
        expected = processed(vectors[name], *tokens, options)
        return {"vector": name, "prompt": tokens[0], "made": tokens[1], "options": options, "expected": expected}

    draw = dict(do_sample=True)
    sets = [
        dict(), dict(repetition_penalty=1.3), dict(repetition_penalty=0.7), dict(presence_penalty=1.5), dict(frequency_penalty=-0.6),
        dict(presence_penalty=-2.0, frequency_penalty=0.9), dict(logit_bias={"3": 4.0, "5": -100.0}),
        dict(logit_bias={"7": 2.5}, repetition_penalty=1.7, presence_penalty=0.4, frequency_penalty=0.3),
        dict(temperature=0.6, top_k=3, top_p=0.5, min_p=0.2),
        dict(draw), dict(draw, temperature=0.7), dict(draw, temperature=1.8), dict(draw, temperature=0.05), dict(draw, top_k=1),
        dict(draw, top_k=5), dict(draw, top_k=1000), dict(draw, top_p=0.9), dict(draw, top_p=0.5), dict(draw, top_p=0.01),
        dict(draw, top_p=0.999), dict(draw, min_p=0.1), dict(draw, min_p=0.9), dict(draw, min_p=1.0),
        dict(draw, temperature=0.6, top_k=10, top_p=0.8), dict(draw, temperature=1.5, top_k=6, min_p=0.05),
        dict(draw, temperature=1.3, top_p=0.95, min_p=0.02), dict(draw, top_k=4, top_p=0.6, min_p=0.3),
        dict(draw, repetition_penalty=1.2, temperature=0.9, top_k=8, top_p=0.9, min_p=0.01),
        dict(draw, repetition_penalty=2.0, top_k=3),
        dict(draw, logit_bias={"2": 5.0, "9": -3.0}, frequency_penalty=0.5, presence_penalty=0.5, temperature=0.8, top_p=0.7),
        dict(draw, frequency_penalty=2.0, top_k=2), dict(draw, logit_bias={"0": 100.0}, top_p=0.4),
    ]  # fmt: skip
    cases = [case("plain", **options) for options in sets]
    cases += [case("large", **options) for options in sets if options.get("top_p") or options.get("top_k") or options.get("min_p")]
    cases += [case(name, **options) for name in ("one", "two", "three", "peaked") for options in sets if "logit_bias" not in options]
    # Which of equal tokens top_p keeps is left to the sort of PyTorch: only how many of them is told.
    cases += [case(name, **options) for name in ("ties", "equal") for options in sets if "logit_bias" not in options]
    return {"vectors": vectors, "sets": len(sets), "cases": cases}


def main():
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    os.makedirs(OUT, exist_ok=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    with open(f"{OUT}/samplers.json", "w") as file:
        json.dump({"versions": versions, **sampler_cases()}, file)
        file.write("\n")
    cases, tensors, embeddings = {}, {}, {}
    for name in sorted(file[:-5] for file in os.listdir(FAMILIES) if file.endswith(".json")):
        runs = decoder(name)
        cases[name] = {run: ids for run, (ids, _, _) in runs.items()}
        tensors.update({f"{name}.{run}": logits.contiguous() for run, (_, logits, _) in runs.items()})
        embeddings.update({f"{name}.{run}": vectors for run, (_, _, vectors) in runs.items()})
        print(name, cases[name])
    with open(f"{OUT}/decoders.json", "w") as file:
        json.dump({"versions": versions, "prompt": PROMPT, "cases": cases}, file)
        file.write("\n")
    save_file(tensors, f"{OUT}/decoders.safetensors")
    save_file(embeddings, f"{OUT}/embeddings.safetensors")


if __name__ == "__main__":
    main()
