"""Quantized checkpoints as transformers and bitsandbytes save them, for tests that need no Python.

    pip install torch==2.13.0 transformers==5.23.0 bitsandbytes==0.50.2 accelerate==1.15.0
    python test/golden/make_quantized_golden.py   # rewrites quantized-nf4/ and quantized-int8/ from bias-untied/ beside this file

    quantized-nf4    nf4 with double quantization, blocks of 64 (rows of 48 and 112 are no whole blocks)
    quantized-int8   LLM.int8

Quantized on the CPU with one thread, on which the mean of the scales depends in its last bit.
"""

import os
import shutil

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = {
    "quantized-nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "quantized-int8": BitsAndBytesConfig(load_in_8bit=True),
}

torch.set_num_threads(1)
for name, config in CASES.items():
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(os.path.join(HERE, "bias-untied"), quantization_config=config)
    model.save_pretrained(folder)
