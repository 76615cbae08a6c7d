"""Model FLOPs utilisation: the published peaks by the names that CUDA gives, and a measured one for CPUs."""

from __future__ import annotations

import math

import pytest
import torch

from ctllm_ray.train.plan.mfu import device_peak, mfu, peak_of


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
    ],
)
def test_gpus_are_known_by_their_names(name: str, peak: float) -> None:
    assert peak_of(name) == peak


def test_ct_llm_at_34_000_tokens_a_second_is_half_of_an_h200() -> None:
    assert mfu(34_000, 14.48e9, peak_of("NVIDIA H200")) == pytest.approx(0.4976, abs=1e-4)


def test_an_unknown_gpu_has_no_mfu() -> None:
    assert math.isnan(mfu(1.0, 1.0, peak_of("Some Card")))


def test_the_peak_of_a_cpu_is_measured() -> None:
    assert 1e8 < device_peak(torch.device("cpu")) < 1e15
