"""Golden values of the likelihood of continuations from transformers and PEFT: the tiny models of families/, without a cache.

    pip install torch==2.13.0 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0
    python test/golden/make_likelihood_golden.py        # rewrites metrics/likelihoods.json beside this file

    versions; prompt: how many of the first tokens of the first example are the prompt; continuations: {family case: lists of ids}
    scores     {family case: {"base": [...], "adapter": [...]}}, the sum of the log-probabilities of the tokens of each, in nats

Each continuation goes through the model by itself, behind the prompt. Those of one token, of one beginning, and of lengths beyond windows
are among them.
"""

import json
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from make_family_golden import HERE as FAMILIES
from make_generation_golden import PROMPT, write

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics", "likelihoods.json")


@torch.no_grad()
def score(model, prompt, continuation):
    ids = torch.tensor([prompt + continuation])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1:-1].double()
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(continuation)[:, None]).sum().item()


def family(case):
    with open(f"{FAMILIES}/{case}.json") as file:
        golden = json.load(file)
    offset = 0 if golden["config"]["model_type"].startswith("gemma") else 1
    first, *others = [ids for ids, _ in golden["examples"]]
    vocabulary = golden["config"].get("text_config", golden["config"])["vocab_size"]
    wrap = lambda ids: [id % vocabulary for id in ids]
    tail = (first[PROMPT:] + [id for ids in others for id in ids])[:14]
    continuations = [tail[:1], [tail[1]], tail[:4], [*tail[:2], 5], wrap([7, 3]), wrap([9, 1, 4, 2, 8]), tail[:14]]
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/config.json", "w") as file:
            json.dump(golden["config"], file)
        write(f"{folder}/model.safetensors", golden["tensors"], 1, offset)
        os.makedirs(f"{folder}/adapter")
        targets = r".*\.language_model\..*_proj" if "vision_config" in golden["config"] else "all-linear"
        with open(f"{folder}/adapter/adapter_config.json", "w") as file:
            json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": targets}, file)
        write(f"{folder}/adapter/adapter_model.safetensors", golden["adapter"], 500, offset)
        load = lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        models = {"base": load(), "adapter": PeftModel.from_pretrained(load(), f"{folder}/adapter").eval()}
        return continuations, {run: [score(model, first[:PROMPT], one) for one in continuations] for run, model in models.items()}


def main():
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    found = {name: family(name) for name in sorted(file[:-5] for file in os.listdir(FAMILIES) if file.endswith(".json"))}
    golden = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "prompt": PROMPT,
        "continuations": {name: continuations for name, (continuations, _) in found.items()},
        "scores": {name: scores for name, (_, scores) in found.items()},
    }
    with open(OUT, "w") as file:
        json.dump(golden, file)
        file.write("\n")
    print(len(found), "families,", os.path.getsize(OUT), "bytes")


if __name__ == "__main__":
    main()
