"""Golden values from PyTorch for training adapters on quantized bases (the tests need no Python).

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0 bitsandbytes==0.50.2
    python test/golden/make_quantized_curves.py        # rewrites quantized-curves/ beside this file

The models of make_golden.py, after which this is run. bitsandbytes quantizes the linear layers of their blocks, and what it dequantizes takes the
place of the weights, in f32: all else is PyTorch's own. Adapters start from a formula: A and B are half of `uniform`, with the place in the
sorted names of an adapter file as salt.

    quantized-curves/golden.json           versions, the optimizer, quantizations and adapters as options; per run
                                           <model>.<quantization>.<adapter> loss of batch 0, its label tokens, the curve
    quantized-curves/golden.safetensors    <run>.logits [label tokens / ROWS, vocab / COLUMNS], of batch 0; <run>.gradients, every
                                           STRIDE-th value of all gradients of batch 0 one after the other; <run>.scales, the
                                           largest magnitude of each gradient. Gradients are in the order of sorted names.
"""

import json
import os

import bitsandbytes
import bitsandbytes.functional as F
import torch
import transformers
from bitsandbytes.nn import Int8Params
from make_golden import ADAMW, MAX_NORM, STEPS, WARMUP, load_base, measure, train, trainables, versions
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from uniform import uniform

MODELS = ("gqa-tied", "bias-untied")
QUANTIZATIONS = {
    "nf4-double": {"kind": "4bit", "quantType": "nf4", "doubleQuant": True, "blockSize": 64},
    "nf4": {"kind": "4bit", "quantType": "nf4", "doubleQuant": False, "blockSize": 64},
    "fp4": {"kind": "4bit", "quantType": "fp4", "doubleQuant": False, "blockSize": 64},
    "int8": {"kind": "8bit"},
}
ADAPTERS = {
    "attention": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
}
LEARNING_RATE = 5e-3
ROWS, COLUMNS, STRIDE = 8, 3, 7


def dequantized(w, quantization):
    """What a matrix in the dtype of its checkpoint becomes, f32."""
    if quantization["kind"] == "8bit":
        p = Int8Params(w, requires_grad=False).to("cpu")
        return F.int8_vectorwise_dequant(p.CB, p.SCB)
    # In one dimension: of a matrix whose rows are not whole blocks, the kernel for the CPU mistakes the scales.
    codes, state = F.quantize_4bit(
        w.view(-1),
        blocksize=quantization["blockSize"],
        quant_type=quantization["quantType"],
        compress_statistics=quantization["doubleQuant"],
    )
    state.dtype = torch.float32
    return F.dequantize_4bit(codes, state).view(w.shape)


def load_quantized(folder, quantization):
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model = load_base(folder)
    count = 0
    with torch.no_grad():
        for name, module in model.model.layers.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(dequantized(stored.model.layers.get_submodule(name).weight.detach(), quantization))
                count += 1
    assert count == 7 * len(model.model.layers)
    return model


def load(folder, quantization, adapter):
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **adapter)
    model = get_peft_model(load_quantized(folder, quantization), config)
    with torch.no_grad():
        for salt, (_, p) in enumerate(sorted(trainables(model).items())):
            p.copy_(torch.from_numpy(uniform(p.numel(), salt) * 0.5).view(p.shape))
    return model


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    tensors, runs = {}, {}
    for folder in MODELS:
        with open(f"{folder}/inputs.json") as f:
            batches = json.load(f)["batches"]
        for quantization, options in QUANTIZATIONS.items():
            for adapter, lora in ADAPTERS.items():
                run, measured = f"{folder}.{quantization}.{adapter}", {}
                scalars = measure(load(folder, options, lora), batches[:1], "", measured)[0]
                gradients = [g for name, g in sorted(measured.items()) if name.startswith(".grad.")]
                tensors[f"{run}.logits"] = measured[".logits"][::ROWS, ::COLUMNS]
                tensors[f"{run}.gradients"] = torch.cat([g.view(-1) for g in gradients])[::STRIDE]
                tensors[f"{run}.scales"] = torch.stack([g.abs().max() for g in gradients])
                curve = train(load(folder, options, lora), batches, LEARNING_RATE)["loss"]
                runs[run] = {"loss": scalars["loss"], "labelTokens": scalars["labelTokens"], "curve": curve}
    os.makedirs("quantized-curves", exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, "quantized-curves/golden.safetensors")
    optimizer = {"learningRate": LEARNING_RATE, "steps": STEPS, "warmupSteps": WARMUP, "maxGradNorm": MAX_NORM, **ADAMW}
    golden = {**versions(), "bitsandbytes": bitsandbytes.__version__, "optimizer": optimizer}
    golden |= {"sampled": {"rows": ROWS, "columns": COLUMNS, "stride": STRIDE}}
    golden |= {"quantizations": QUANTIZATIONS, "adapters": ADAPTERS, "runs": runs}
    with open("quantized-curves/golden.json", "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


main()
