"""Golden bytes of the block formats that Lowrank writes, from the gguf package, for src/storage/gguf/quantize.test.ts (no Python there).

    pip install gguf==0.19.0 numpy safetensors
    python test/golden/make_gguf_quantized.py     # rewrites gguf/quantized.safetensors beside this file

    gguf/quantized.safetensors    values: f32 numbers; <TYPE>.bytes: their blocks

Among the numbers: zeros of both signs, blocks with one number, ties, very small and large ones, and values whose codes lie on a half.
"""

import os

import numpy as np
from gguf import GGMLQuantizationType, quantize
from safetensors.numpy import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gguf")
rng = np.random.default_rng(99)
blocks = [rng.normal(0, 10.0 ** rng.integers(-6, 4), 32) for _ in range(200)]
blocks += [np.zeros(32), -np.zeros(32), np.full(32, 0.5), np.full(32, -3.25), np.arange(32) - 16.0, (np.arange(32) - 16) / 2]
blocks += [np.where(np.arange(32) == i, sign * 7.0, 0.0) for i in (0, 15, 16, 31) for sign in (1, -1)]
# The largest in both signs: the first counts. Codes on a half, of both formats.
blocks += [np.where(np.arange(32) % 2 == 0, 4.0, -4.0), np.where(np.arange(32) % 2 == 0, -4.0, 4.0)]
blocks += [np.concatenate([[127.0], np.arange(31) + 0.5]), np.concatenate([[-8.0], (np.arange(31) - 15) / 2])]
blocks += [rng.normal(0, 1e-36, 32), rng.normal(0, 1e-8, 32), rng.normal(0, 3e4, 32)]
values = np.stack(blocks).astype(np.float32)
tensors = {"values": values.reshape(-1)}
for name in ("Q8_0", "Q4_0"):
    tensors[f"{name}.bytes"] = quantize(values, GGMLQuantizationType[name]).reshape(-1)
save_file(tensors, os.path.join(OUT, "quantized.safetensors"))
print({name: tensor.shape for name, tensor in tensors.items()})
