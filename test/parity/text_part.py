"""Checks that PEFT and transformers load what Lowrank makes of the part for texts of a model of images (Gemma 3).

    pip install torch==2.13.0 transformers==5.24.0 peft==0.21.2 bitsandbytes==0.50.2 accelerate
    npm run build && python test/parity/text_part.py

A random model is trained and quantized by the command line. PEFT has to adapt exactly the modules that are in the file, evaluations have to
agree, and the weights of the vision tower have to be those that were there.
"""

import json
import os
import shutil
import subprocess
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT would look the base model up on the hub
import torch
from examples import evaluate, read_examples
from peft import PeftModel
from quantized import to_dense
from safetensors.torch import load_file
from transformers import AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
QUICKSTART = f"{ROOT}/examples/quickstart"
RUNS = {
    "names": ["--target-modules", "q_proj,v_proj,down_proj", "--exclude-modules", "down_proj", "--layers-to-transform", "1,2"],
    "all-linear": ["--target-modules", "all-linear", "--method", "qlora", "--load-in-8bit"],
    "saved": ["--target-modules", "q_proj", "--modules-to-save", "lm_head,q_norm"],
}


def make(folder):
    torch.manual_seed(0)
    text = dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, head_dim=16,
        vocab_size=2496, max_position_embeddings=512, sliding_window=16, initializer_range=0.2, pad_token_id=0, eos_token_id=0,
    )  # fmt: skip
    vision = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    # Tokens of images that no text has.
    images = dict(mm_tokens_per_image=1, image_token_index=2495, boi_token_index=2494, eoi_token_index=2493)
    Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, **images)).save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]:
        shutil.copy(f"{QUICKSTART}/model/{name}", folder)


def lowrank(*args):
    found = subprocess.run(["node", f"{ROOT}/dist/cli.js", *args], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


def main():
    with tempfile.TemporaryDirectory() as folder:
        model, data = f"{folder}/model", f"{folder}/data.jsonl"
        make(model)
        with open(f"{QUICKSTART}/train.jsonl") as source, open(data, "w") as file:
            file.writelines(source.readlines()[:8])
        examples = read_examples(data, AutoTokenizer.from_pretrained(model), 256)

        def load(path):
            return Gemma3ForConditionalGeneration.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")

        def compare(name, net, *args):
            own = json.loads(lowrank("eval", "--data", data, "--max-length", "256", "--json", *args))["loss"]
            theirs = evaluate(net, examples)["loss"]
            print(f"{name}: loss {own:.6f}, in Python {theirs:.6f}, difference {abs(own - theirs):.1e}")
            return abs(own - theirs)

        assert compare("base", load(model), "--model", model) < 1e-4
        for name, options in RUNS.items():
            adapter = f"{folder}/{name}"
            train = ["--train", data, "--max-length", "256", "--max-steps", "3", "--learning-rate", "0.01"]
            lowrank("train", "--model", model, "--output-dir", adapter, *train, *options)
            net = PeftModel.from_pretrained(load(model), adapter, is_trainable=True)
            trained = [n for n, p in net.named_parameters() if p.requires_grad]
            stored = load_file(f"{adapter}/adapter_model.safetensors")
            assert sorted(stored) == sorted(n.replace(".default", "").replace(".modules_to_save", "") for n in trained), name
            assert all("vision" not in n for n in trained)
            # As it is stored, also where it was trained on what quantization made of it.
            assert compare(name, net.eval(), "--model", model, "--adapter", adapter, "--method", "lora") < 1e-4
        before = load_file(f"{model}/model.safetensors")
        others = [n for n in before if not n.startswith("language_model.")]
        for dtype in ["auto", "bf16"]:
            output = f"{folder}/full-{dtype}"
            train = ["--train", data, "--max-length", "256", "--max-steps", "3", "--learning-rate", "0.001"]
            lowrank("train", "--model", model, "--output-dir", output, *train, "--method", "full", "--save-dtype", dtype)
            net = Gemma3ForConditionalGeneration.from_pretrained(output, dtype="auto", attn_implementation="eager")
            expected = torch.float32 if dtype == "auto" else torch.bfloat16
            assert {p.dtype for p in net.parameters()} == {expected}
            assert compare(f"full, {dtype}", load(output), "--model", output) < 1e-4
            after = load_file(f"{output}/model.safetensors")
            assert sorted(after) == sorted(before) and len(others) > 10
            assert all(torch.equal(before[n], after[n]) for n in others)
        for bits in ["4", "8"]:
            output = f"{folder}/in-{bits}"
            lowrank("quantize", "--model", model, "--output", output, f"--load-in-{bits}bit")
            net = load(output)
            layers = to_dense(net)
            assert len(layers) == 21 and all(".language_model." in name for name in layers)
            assert compare(f"{bits} bits", net, "--model", output) < 1e-4
            after = load_file(f"{output}/model.safetensors")
            assert all(torch.equal(before[n], after[n]) for n in others)


if __name__ == "__main__":
    main()
