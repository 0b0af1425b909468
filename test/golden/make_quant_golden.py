"""Golden values from bitsandbytes on the CPU for the tests of src/storage (which need no Python).

    pip install torch==2.13.0 bitsandbytes==0.50.2 safetensors==0.8.0
    python test/golden/make_quant_golden.py        # rewrites quant/ beside this file

    quant/golden.json          versions, seed, the cases, sums; scalars and digests
    quant/golden.safetensors   inputs and quantized tensors

Inputs are f32; a case of dtype BF16 or F16 gives bitsandbytes the input rounded to that (nearest even).

    fourbit     {name, input, dtype, quantType, blockSize, offset, plain, nested}: <name>.codes, <name>.absmax; with double quantization
                <name>.nested.codes, <name>.nested.absmax and `offset`. The codes are the same with and without.
                `plain` and `nested` are the SHA-256 of the weights dequantized to f32 by the definition; the kernel of
                bitsandbytes was found equal wherever it takes the shape.
    int8        {name, input, dtype}: <name>.data [rows, columns], <name>.scale; dequantized `sha256`
    blockwise   {name, input, signed, blockSize}: <name>.codes, <name>.absmax; dequantized `sha256`
    maps        map.signed, map.unsigned, table.nf4, table.fp4
    means       count -> bits of the f32 mean of (i * 2654435761 mod 2^32) / 2^32, i < count, one thread
"""

import hashlib
import json
import os
import platform

import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import torch
from bitsandbytes.nn import Int8Params
from safetensors.torch import save_file

SEED = 1234
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quant")
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def close_calls(quant_type, count):
    """A scale, then values whose code depends on how they are scaled: divided, or times the reciprocal, rounded or not."""
    table = F.get_4bit_type(quant_type, "cpu").sort().values
    borders = (table[1:] + table[:-1]) / 2
    scale = torch.tensor(3.3)
    near = borders * scale
    near = torch.cat([near, *(near.nextafter(torch.tensor(to)) for to in (-9.0, 9.0))])
    near = torch.cat([near, near.nextafter(torch.tensor(9.0)), near.nextafter(torch.tensor(-9.0))]).unique()
    code = lambda scaled: torch.bucketize(scaled, borders.to(scaled.dtype))
    divided, rounded = code(near / scale), code(near * (1 / scale))
    exact = code(near.double() * (1 / scale).double())
    found = near[(divided != rounded) | (rounded != exact)]
    assert (divided != rounded).any() and (rounded != exact).any()
    return torch.cat([scale.view(1), found.repeat(count)[: count - 1]])


def make_inputs():
    """Awkward counts, and a matrix of normal, uniform, tiny, huge, constant and zero stretches with outliers."""
    normal = lambda *shape: torch.randn(*shape)
    mixed = 0.02 * normal(100, 88)
    mixed[10:20] = torch.rand(10, 88) - 0.5
    mixed[20:24] = 0
    mixed[24:26] = 1e-6 * normal(2, 88)
    mixed[26] = 3e4 * normal(88).clamp(-2, 2)
    mixed[27:29] = -0.125
    mixed[30] = torch.linspace(-1, 1, 88)
    mixed[31, :16] = F.get_4bit_type("nf4", "cpu")
    mixed[31, 16:32] = F.get_4bit_type("fp4", "cpu")
    mixed.view(-1)[4000::1111] = torch.tensor([8.0, -30.0, 100.0, -6.5, 0.9])
    # Values on the borders between two codes: they go down, whichever way the tables are searched.
    for row, name in ((32, "nf4"), (34, "fp4")):
        table = F.get_4bit_type(name, "cpu").sort().values
        borders = (table[1:] + table[:-1]) / 2
        values = torch.cat([torch.ones(1), borders, borders.nextafter(torch.ones(())), borders.nextafter(-torch.ones(()))])
        mixed.view(-1)[row * 88 : row * 88 + 176] = torch.nn.functional.pad(values, (0, 176 - len(values)))
        mixed.view(-1)[-(-row * 88 // 64) * 64 :][: len(values)] = values
    sized = {f"normal-{n}": normal(n) for n in (1, 2, 63, 64, 65, 127, 1000)}
    tiny = torch.tensor([1e-39, -3e-39, 0, 2e-41, 1e-45, -1e-38, 2e-38, 1e-30])
    return {
        **sized, "matrix": mixed, "zeros-64": torch.zeros(64), "zeros-70": torch.zeros(70),
        "subnormal-70": torch.cat([torch.zeros(56), tiny, tiny[:6]]), "subnormal-64": 1e-39 * torch.randn(64).relu() - 1e-39 * torch.rand(64).round(),
        **{f"close-{t}-{n}": close_calls(t, n) for t in ("nf4", "fp4") for n in (64, 60)},
        "large-100": 1e37 * normal(100), "wide-2200": normal(2200) * 10.0 ** (-7 * torch.rand(2200)),
    }  # fmt: skip


def sha256(t):
    return hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest()


def dequantize_fourbit(q, absmax, quant_type, block_size, n):
    """Any shape, by the definition."""
    codes = torch.stack([q.view(-1) >> 4, q.view(-1) & 15], 1).view(-1)[:n].int()
    return F.get_4bit_type(quant_type, "cpu")[codes] * absmax.repeat_interleave(block_size)[:n]


def fourbit(name, values, dtype, quant_type, block_size, tensors):
    x = values.to(DTYPES[dtype])
    q, plain = F.quantize_4bit(x, blocksize=block_size, quant_type=quant_type)
    q2, nested = F.quantize_4bit(x, blocksize=block_size, quant_type=quant_type, compress_statistics=True)
    assert torch.equal(q, q2)
    tensors |= {f"{name}.codes": q.view(-1), f"{name}.absmax": plain.absmax}
    tensors |= {f"{name}.nested.codes": nested.absmax, f"{name}.nested.absmax": nested.state2.absmax}
    scales = F.dequantize_blockwise(nested.absmax, nested.state2) + nested.offset
    digests = {}
    for key, state, absmax in (("plain", plain, plain.absmax), ("nested", nested, scales)):
        w = dequantize_fourbit(q, absmax, quant_type, block_size, x.numel())
        state.dtype = torch.float32
        # The native kernel takes the scales of a matrix by rows, which holds only where rows are whole blocks.
        if x.dim() == 1 or x.shape[-1] % block_size == 0:
            assert torch.equal(F.dequantize_4bit(q, state).view(-1), w), name
        digests[key] = sha256(w)
    return {"offset": nested.offset.item(), **digests}


def int8(name, values, dtype, tensors):
    p = Int8Params(values.to(DTYPES[dtype]), requires_grad=False).to("cpu")
    tensors |= {f"{name}.data": p.CB, f"{name}.scale": p.SCB}
    return {"sha256": sha256(F.int8_vectorwise_dequant(p.CB, p.SCB))}


def blockwise(name, values, signed, block_size, tensors):
    q, state = F.quantize_blockwise(values, code=F.create_dynamic_map(signed=signed), blocksize=block_size)
    tensors |= {f"{name}.codes": q.view(-1), f"{name}.absmax": state.absmax}
    return {"sha256": sha256(F.dequantize_blockwise(q, state))}


def means():
    result = {}
    for n in [*range(1, 70), 127, 128, 255, 256, 511, 512, 513, 1000, 2047, 2048, 4097, 13824, 32768, 65537, 200003, 1048576]:
        x = (np.arange(n, dtype=np.uint32) * np.uint32(2654435761)).astype(np.float64) / 2**32
        result[n] = torch.tensor(x.astype(np.float32)).mean().view(torch.int32).item()
    return result


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order in which a mean is summed up depends on it
    inputs = make_inputs()
    tensors = {f"input.{name}": values for name, values in inputs.items()}
    cases = {"fourbit": [], "int8": [], "blockwise": []}
    for quant_type in ("nf4", "fp4"):
        for dtype in DTYPES:
            for block_size in (32, 64, 128):
                for name in inputs:
                    # Every combination would make a large file.
                    if block_size != 64 and dtype != ("BF16" if name == "matrix" else "F32"):
                        continue
                    if name.startswith("close") and (quant_type not in name or block_size != 64):
                        continue
                    if dtype != "F32" and name.startswith(("subnormal", "large", "zeros", "close")):
                        continue
                    case = {"name": f"{quant_type}.{dtype}.{block_size}.{name}", "input": name, "dtype": dtype}
                    case |= {"quantType": quant_type, "blockSize": block_size}
                    cases["fourbit"].append(case | fourbit(case["name"], inputs[name], dtype, quant_type, block_size, tensors))
    for dtype in DTYPES:
        case = {"name": f"int8.{dtype}", "input": "matrix", "dtype": dtype}
        cases["int8"].append(case | int8(case["name"], inputs["matrix"], dtype, tensors))
    for signed in (True, False):
        for name in ("matrix", "wide-2200", "normal-1000", "zeros-70", "subnormal-70", "subnormal-64", "large-100", "normal-1"):
            case = {"name": f"blockwise.{'signed' if signed else 'unsigned'}.{name}", "input": name, "signed": signed}
            case |= {"blockSize": 64 if name == "normal-1000" else 256}
            cases["blockwise"].append(case | blockwise(case["name"], inputs[name], signed, case["blockSize"], tensors))
    tensors |= {f"map.{k}": F.create_dynamic_map(signed=k == "signed") for k in ("signed", "unsigned")}
    tensors |= {f"table.{k}": F.get_4bit_type(k, "cpu") for k in ("nf4", "fp4")}

    versions = {"python": platform.python_version(), "torch": torch.__version__, "bitsandbytes": bitsandbytes.__version__}
    golden = {"versions": versions, "seed": SEED, **cases, "means": means()}
    os.makedirs(OUT, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(OUT, "golden.safetensors"))
    with open(os.path.join(OUT, "golden.json"), "w") as f:
        # A case a line.
        f.write(json.dumps(golden).replace('{"name"', '\n  {"name"').replace('], "', '],\n"') + "\n")


main()
