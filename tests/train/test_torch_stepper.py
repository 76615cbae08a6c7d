"""The plain stepper does what the textbook does: true mean over targets, clipped AdamW, whatever the
micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ctllm_ray.base.recipe_training import Train, TrainResources
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.train.data.batch import IGNORED, Batch
from ctllm_ray.train.objectives.pretrain import pretrain
from ctllm_ray.train.steppers.torch import TorchStepper

SHAPE = ModelConfig(2, 32, 4, 4, 8, 64, 97, 32, tied=True)
ROWS, TOKENS = 6, 16


def train_part(**changed: Any) -> Train:
    plain = {
        "objective": {"use": "pretrain"}, "tokens": 96 * 10, "batch_tokens": 96, "sequence_tokens": TOKENS,
        "packing": "concatenate", "document_attention": True, "precision": "fp32",
        "mixture": [{"shares": {"web": 1.0}}],
        "schedule": {"use": "cosine", "peak_rate": 0.01, "warmup_tokens": 0},
    }  # fmt: skip
    return Train.model_validate(plain | changed)


def stepper(resources: TrainResources | None = None, **changed: Any) -> TorchStepper:
    model = llama.build(SHAPE, 1)
    return TorchStepper(model, pretrain().loss, train_part(**changed), resources or TrainResources(), 0, 1)


def rows(seed: int = 0) -> Batch:
    draw = np.random.default_rng(seed)
    ids, labels = draw.integers(0, 97, (2, ROWS, TOKENS))
    labels[0, 3:], labels[4, :9] = IGNORED, IGNORED  # rows with very different numbers of targets
    positions = np.tile(np.arange(TOKENS), (ROWS, 1))
    return Batch(ids, labels, positions, np.zeros((ROWS, TOKENS), np.int32))


def cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    ends = np.cumsum(sizes)
    return [
        Batch(*(array[end - size : end] for array in vars(batch).values()))
        for size, end in zip(sizes, ends, strict=True)
    ]


def test_updates_equal_those_of_a_plain_loop_over_the_true_mean() -> None:
    ours = stepper()
    model = llama.build(SHAPE, 1)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    for number in range(4):
        batch = rows(number)
        loss = ours.backward(cut(batch, [2, 1, 3]), batch.target_tokens)
        norm = ours.apply(0.01)
        logits = model(input_ids=torch.from_numpy(batch.input_ids), use_cache=False).logits
        labels = torch.from_numpy(batch.labels).flatten()
        expected = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED)
        adam.zero_grad()
        expected.backward()
        expected_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        torch.testing.assert_close(loss[0], expected.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(norm, expected_norm, rtol=1e-4, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours.module.get_parameter(name), parameter, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sizes", [[6], [1] * 6, [4, 2]])
def test_how_a_batch_is_cut_changes_rounding_only(sizes: list[int]) -> None:
    batch = rows()
    ours, whole = stepper(), stepper()
    loss = ours.backward(cut(batch, sizes), batch.target_tokens)
    torch.testing.assert_close(loss, whole.backward([batch], batch.target_tokens), rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.apply(0.0), whole.apply(0.0), rtol=1e-5, atol=0)


def test_discarded_gradients_leave_no_trace() -> None:
    ours, other = stepper(), stepper()
    batch = rows(1)
    ours.backward([rows(0)], rows(0).target_tokens)
    ours.discard()
    for one in (ours, other):
        one.backward([batch], batch.target_tokens)
        one.apply(0.01)
    assert_equal(state(ours), state(other))


def test_an_update_whose_gradient_is_not_finite_is_not_made() -> None:
    ours = stepper()
    batch = rows()
    ours.backward([batch], batch.target_tokens)
    ours.apply(0.01)
    before = state(ours)
    ours.backward([batch], batch.target_tokens)
    next(iter(ours.module.parameters())).grad.view(-1)[3] = float("inf")  # type: ignore[union-attr]
    assert not torch.isfinite(ours.apply(0.01))
    assert_equal(state(ours), before)
    ours.backward([batch], batch.target_tokens)
    assert torch.isfinite(ours.apply(0.01))
    assert not torch.equal(state(ours)["model.model.norm.weight"], before["model.model.norm.weight"])


def test_state_that_is_loaded_goes_on_to_the_bit() -> None:
    ours = stepper()
    for number in range(3):
        ours.backward([rows(number)], rows(number).target_tokens)
        ours.apply(0.01)
    saved = state(ours)
    other = stepper()
    other.load(saved.__getitem__, 3)
    for one in (ours, other):
        one.backward([rows(9)], rows(9).target_tokens)
        one.apply(0.005)
    assert_equal(state(ours), state(other))


def test_the_workers_shares_of_the_state_are_whole_and_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctllm_ray.train.steppers.torch.dist.all_reduce", None)
    model = llama.build(SHAPE, 1)
    shares = []
    for rank in range(3):
        one = TorchStepper(model, pretrain().loss, train_part(), TrainResources(), rank, 3)
        shares.append(dict(one.tensors()))
    names = [name for share in shares for name in share]
    assert len(names) == len(set(names))
    assert set(names) == {
        f"{part}.{n}" for n, _ in model.named_parameters() for part in ("model", "exp_avg", "exp_avg_sq")
    }
    sizes = [sum(t.numel() for t in share.values()) for share in shares]
    assert max(sizes) < 2 * min(sizes)


def test_what_it_hands_out_are_copies() -> None:
    ours = stepper()
    before = state(ours)
    kept = {name: tensor.clone() for name, tensor in before.items()}
    ours.backward([rows()], rows().target_tokens)
    ours.apply(0.01)
    assert_equal(before, kept)


def test_norms_and_biases_do_not_decay() -> None:
    ours = stepper()
    before = state(ours)
    batch = rows()
    ours.backward([batch], batch.target_tokens)
    ours.discard()
    ours.apply(0.1)  # no gradient: all that is left is decay by rate x 0.1
    after = state(ours)
    assert torch.equal(after["model.model.norm.weight"], before["model.model.norm.weight"])
    matrix = "model.model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(after[matrix], before[matrix] * 0.99, rtol=1e-5, atol=1e-7)


def test_bf16_trains_fp32_weights() -> None:
    ours, exact = stepper(precision="bf16"), stepper()
    batch = rows()
    near = ours.backward([batch], batch.target_tokens)
    torch.testing.assert_close(near, exact.backward([batch], batch.target_tokens), rtol=1e-2, atol=0)
    ours.apply(0.01)
    assert all(tensor.dtype == torch.float32 for tensor in state(ours).values())


def test_activation_checkpointing_changes_nothing() -> None:
    ours, plain = stepper(TrainResources(activation_checkpointing=True)), stepper()
    batch = rows()
    for one in (ours, plain):
        one.backward([batch], batch.target_tokens)
        one.apply(0.01)
    assert_equal(state(ours), state(plain))


def test_small_buckets_do_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stepper()
    monkeypatch.setattr("ctllm_ray.train.steppers.torch.BUCKET_ELEMENTS", 1000)
    ours = stepper()
    batch = rows()
    for one in (ours, whole):
        one.backward([batch], batch.target_tokens)
    torch.testing.assert_close(ours.apply(0.01), whole.apply(0.01), rtol=1e-6, atol=0)


def state(of: TorchStepper) -> dict[str, torch.Tensor]:
    return dict(of.tensors())


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
