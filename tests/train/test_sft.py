"""Supervised fine-tuning: the loss of packed rows is that of each conversation alone, by answers, however it
is cut."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ctllm_ray.base.recipe_training import TrainResources
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.train import records
from ctllm_ray.train.data import corpora
from ctllm_ray.train.data.batch import Batch
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import open_corpora
from ctllm_ray.train.losses import head_loss
from ctllm_ray.train.objectives.sft import sft
from ctllm_ray.train.steppers.torch import TorchStepper
from ctllm_ray.train.validation import validate
from tests.train.talk_runs import Talk, recipe, talks, write_talks
from tests.train.test_torch_stepper import train_part
from tests.train.tiny_runs import VOCABULARY, assert_same_model, run

SHAPE = ModelConfig(2, 32, 4, 4, 8, 64, VOCABULARY, 64)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def alone(model: torch.nn.Module, found: list[Talk]) -> tuple[float, int]:
    """Summed nats and the number of the answers' tokens, one conversation at a time, by transformers' own
    model."""
    nats, count = 0.0, 0
    for ids, answered in found:
        given = torch.from_numpy(ids[None])
        logits = model(input_ids=given, use_cache=False).logits[0, :-1]
        labels = torch.from_numpy(np.where(answered, ids, -100)[1:])
        nats += float(F.cross_entropy(logits.double(), labels, reduction="sum", ignore_index=-100))
        count += int((labels != -100).sum())
    return nats, count


def packed(root: Path, found: list[Talk]) -> list[Batch]:
    """One epoch of them in batches of one row."""
    write_talks(root / "s" / "1" / "tokens", {"zh": found})
    of = recipe(root, 100, batch_tokens=32, block_sequences=1, mixture=[{"shares": {"zh": 1}}])
    batches = Batches(of, open_corpora(of))
    last = next(n for n in range(1, 100) if batches.account(0, n + 1)["zh"].epochs_begun > 1)
    return [batches.batch(number, 0, 1) for number in range(last)]


def test_the_loss_of_packed_rows_is_the_loss_of_each_conversation_alone(tmp_path: Path) -> None:
    found = talks(8, 44)
    model = llama.build(SHAPE, 3)
    with torch.no_grad():
        ours = sum(
            float(sft().loss(model, llama.tensors(row, torch.device("cpu")))[0])
            for row in packed(tmp_path, found)
        )
        theirs, _ = alone(model, found[:-4])
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("sizes", [[1] * 8, [3, 5], [8]])
def test_the_mean_is_over_all_answer_tokens_however_the_batch_is_cut(
    tmp_path: Path, sizes: list[int]
) -> None:
    found = talks(9, 60)
    rows = packed(tmp_path, found)[:8]
    whole = [
        np.concatenate([getattr(row, name) for row in rows])
        for name in ("input_ids", "labels", "positions", "documents")
    ]
    ends = np.cumsum(sizes)
    cut = [
        Batch(*(array[end - size : end] for array in whole)) for size, end in zip(sizes, ends, strict=True)
    ]
    model = llama.build(SHAPE, 3)
    targets = sum(row.target_tokens for row in rows)
    stepper = TorchStepper(model, sft().loss, train_part(), TrainResources(), 0, 1)
    [loss] = stepper.backward(cut, targets).tolist()
    norm = float(stepper.apply(0.0))
    expected = llama.build(SHAPE, 3)
    all_at_once = llama.tensors(Batch(*whole), torch.device("cpu"))
    hidden = llama.forward_hidden(expected, all_at_once)
    mean = F.cross_entropy(
        expected.lm_head(hidden).flatten(0, 1), all_at_once["labels"].flatten(), ignore_index=-100
    )
    mean.backward()
    norms = [parameter.grad.norm() for parameter in expected.parameters() if parameter.grad is not None]
    assert loss == pytest.approx(float(mean.detach()), rel=1e-5)
    assert norm == pytest.approx(float(torch.stack(norms).norm()), rel=1e-4)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_what_the_workers_add_up_to_is_the_mean_over_the_answers_of_the_global_batch(
    tmp_path: Path, world: int
) -> None:
    of = recipe(tmp_path)
    batches, model, number = Batches(of, open_corpora(of)), llama.build(SHAPE, 3), 2
    shares = [batches.share(rank, world) for rank in range(world)]
    parts = [batches.batch(number, first, last) for first, last in shares]
    assert sum(part.target_tokens for part in parts) == batches.divisor(number)
    with torch.no_grad():
        sums = [sft().loss(model, llama.tensors(part, torch.device("cpu")))[0] for part in parts]
        found = {piece.doc_id for piece in batches.pieces(number, 0, batches.sequences)}
        theirs = [alone(model, [by_name(name)]) for name in found]
    told = sum(float(one) / batches.divisor(number) for one in sums)
    assert told == pytest.approx(
        sum(nats for nats, _ in theirs) / sum(count for _, count in theirs), rel=1e-5
    )


def by_name(doc_id: str) -> Talk:
    """A conversation of the recipe's own section."""
    group, _, number = doc_id.split("/")
    return {"zh": talks(1, 40), "en": talks(2, 20)}[group][int(number)]


def test_rows_without_an_answer_add_nothing(tmp_path: Path) -> None:
    [row, *_] = packed(tmp_path, talks(10, 20))
    silent = Batch(row.input_ids, np.full_like(row.labels, -100), row.positions, row.documents)
    model = llama.build(SHAPE, 3)
    loss = sft().loss(model, llama.tensors(silent, torch.device("cpu")))
    loss[0].backward()
    assert loss.tolist() == [0]
    assert all(not bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


def test_the_output_layer_sees_answers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [row, *_] = packed(tmp_path, talks(11, 20))
    seen: list[int] = []
    nats = head_loss.nats

    def watched(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(hidden.shape[0])
        return nats(hidden, weight, labels)

    monkeypatch.setattr(head_loss, "nats", watched)
    sft().loss(llama.build(SHAPE, 3), llama.tensors(row, torch.device("cpu")))
    assert seen == [row.target_tokens]


def test_held_out_conversations_are_judged_by_their_answers(tmp_path: Path) -> None:
    found = talks(12, 30)
    write_talks(tmp_path, {"zh": found})
    groups = validate.documents(corpora.held_out(corpora.read_sections([str(tmp_path)])), 10**6)
    model = llama.build(SHAPE, 3)
    told = validate.bits(model, groups, sequence_tokens=32)["zh"]
    with torch.no_grad():
        nats, count = alone(model, found[-4:])
    assert told["tokens"] == count
    assert told["documents"] == 4
    assert told["nats_per_token"] == pytest.approx(nats / count, rel=1e-5)
    assert told["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / count, rel=1e-5
    )  # here a byte for each id


def test_resuming_at_any_step_equals_never_stopping(tmp_path: Path) -> None:
    whole = recipe(tmp_path / "whole")
    state, losses, _ = run(whole)
    parts = recipe(tmp_path / "parts")
    for batches in (3, 2, 99):
        resumed = run(parts, batches)
    assert resumed[0].step == state.step == 8
    assert_same_model(whole, parts)
    assert [r.loss for r in records.read_steps(parts.folder("train"))] == losses
    assert state.targets == sum(r.targets for r in records.read_steps(whole.folder("train")))
