"""Golden values of the block formats of GGUF, from the gguf package, for the tests of src/storage/gguf (which need no Python).

    pip install gguf==0.19.0 numpy safetensors
    python test/golden/make_gguf_golden.py        # rewrites gguf/ beside this file

    gguf/golden.safetensors    <TYPE>.bytes: blocks of random bytes; <TYPE>.values: what they are in f32

Scales are finite f16 numbers, among them zero, negative, subnormal and the largest ones.
"""

import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from safetensors.numpy import save_file

SEED = 1234
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gguf")
# Where in a block the scales in f16 are.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
# 0, -0, the smallest, a negative subnormal, the largest subnormal, the smallest normal, the largest and the least number; 1, -1.
EDGES = np.array([0x0000, 0x8000, 0x0001, 0x8123, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00], dtype=np.uint16)

rng = np.random.default_rng(SEED)
tensors = {}
for name, places in SCALES.items():
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    count = 40 if elements == 32 else 16
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in places:
        scales = rng.normal(0, 0.01, count).astype(np.float16).view(np.uint16)
        scales[: len(EDGES)] = rng.permutation(EDGES)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    values = dequantize(blocks, GGMLQuantizationType[name])
    assert np.isfinite(values).all(), name
    tensors[f"{name}.bytes"] = blocks.reshape(-1)
    tensors[f"{name}.values"] = values.reshape(-1).astype(np.float32)
os.makedirs(OUT, exist_ok=True)
save_file(tensors, os.path.join(OUT, "golden.safetensors"))
