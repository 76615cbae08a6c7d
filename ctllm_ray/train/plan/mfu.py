"""Model FLOPs utilization (MFU): the share of the devices' peak FLOP/s that the model uses.

MFU = tokens/s x FLOPs per token / peak FLOPs of all devices, with FLOPs per token after PaLM (Chowdhery
et al. 2022, appendix B: 6 x matmul parameters + 12 x layers x width x context; attention counted whole
though it is causal, recomputed activations not counted). The peak of a GPU is its maker's dense bf16
tensor rate without sparsity. A CPU has no such number: its peak is the best fp32 matmul that this process
reaches in half a second at the start, so that MFU says how near a step comes to what this machine does
with plain matrix products.
"""

from __future__ import annotations

import time

import torch

#: Dense bf16 FLOPs per second by a part of CUDA's device name; the first match counts. From NVIDIA's data
#: sheets.
PEAK_FLOPS = (
    ("B300", 2250e12),
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("H200", 989.4e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989.4e12),
    ("H800 PCIe", 756e12),
    ("H800", 989.4e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L20", 119.5e12),
    ("RTX 6000 Ada", 364.2e12),
    ("RTX 5090", 209.5e12),  # with fp32 accumulation
    ("RTX 4090", 165.2e12),  # with fp32 accumulation
    ("RTX 3090", 71e12),  # with fp32 accumulation
)
MATMUL_WIDTH, MATMUL_S = 1024, 0.5


def mfu(tokens_per_s: float, flops_per_token: float, peak_flops: float) -> float:
    """Share of the peak of all devices, 0 to 1; NaN if the peak is unknown."""
    return tokens_per_s * flops_per_token / peak_flops


def device_peak(device: torch.device) -> float:
    """Peak FLOPs per second of one device: of a known GPU, or measured on a CPU; NaN for an unknown GPU."""
    if device.type == "cpu":
        return _matmul_flops()
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else float("nan")


def peak_of(gpu: str) -> float:
    """Dense bf16 FLOPs per second of a GPU by CUDA's device name; NaN for an unknown one."""
    return next((peak for part, peak in PEAK_FLOPS if part.lower() in gpu.lower()), float("nan"))


def _matmul_flops() -> float:
    """FLOPs per second of the fastest fp32 product within `MATMUL_S`, with this process's threads."""
    a_KK = torch.ones(MATMUL_WIDTH, MATMUL_WIDTH)
    torch.mm(a_KK, a_KK)
    best_s, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < MATMUL_S:
        before = time.perf_counter()
        torch.mm(a_KK, a_KK)
        best_s = min(best_s, time.perf_counter() - before)
    return 2 * MATMUL_WIDTH**3 / best_s
