"""The loss in chunks is the loss in one go, and so are its gradients."""

from __future__ import annotations

import pytest
import torch

from ctllm_ray.model import head, llama
from ctllm_ray.model.config import ModelConfig

SMALL = ModelConfig(1, 64, 4, 4, 16, 96, 128, 64)


def example() -> tuple[llama.LlamaForCausalLM, torch.Tensor, torch.Tensor]:
    model = llama.build(SMALL, seed=3)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 23, 64, generator=generator)
    labels = torch.randint(0, 128, (2, 23), generator=generator)
    labels[0, 5:9] = head.IGNORED
    return model, hidden, labels


@pytest.mark.parametrize("chunk_tokens", [1, 7, 46, 1000])
def test_the_chunked_sum_and_its_gradients_are_those_of_one_go(chunk_tokens: int) -> None:
    model, hidden, labels = example()
    found = []
    for loss in (head.nats, lambda *a: head.chunked_nats(*a, chunk_tokens=chunk_tokens)):
        leaf = hidden.clone().requires_grad_()
        model.zero_grad()
        total = loss(model, leaf, labels)
        (total / 42).backward()
        found.append((total.detach(), leaf.grad, model.lm_head.weight.grad.clone()))
    for plain, chunked in zip(*found, strict=True):
        assert torch.allclose(plain, chunked, rtol=1e-5, atol=1e-6)


def test_token_nats_sum_to_the_loss_and_are_zero_where_there_is_no_target() -> None:
    model, hidden, labels = example()
    each = head.token_nats(model, hidden, labels, chunk_tokens=7)
    assert each.shape == labels.shape
    assert bool((each[labels == head.IGNORED] == 0).all())
    assert torch.allclose(each.sum(), head.nats(model, hidden, labels), rtol=1e-5)


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    model, hidden, labels = example()
    leaf = hidden.clone().requires_grad_()
    total = head.chunked_nats(model, leaf, torch.full_like(labels, head.IGNORED))
    total.backward()
    assert total.item() == 0
    assert leaf.grad is not None
    assert not leaf.grad.any()
