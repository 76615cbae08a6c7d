"""The loss of preference pairs on packed rows is TRL's on padded ones, and what is told beside it is what TRL
logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.train.data.batch import IGNORED, Batch
from ctllm_ray.train.losses import head_loss, preference_loss
from ctllm_ray.train.objectives.dpo import SUMS, dpo

CONFIG = ModelConfig(2, 32, 4, 2, 8, 64, 128, 64)
PAD, WIDTH, BETA = 3, 64, 0.3
Pair = dict[str, list[int]]  # prompt_ids, chosen_ids, rejected_ids


def pairs(count: int, seed: int = 0) -> list[Pair]:
    draw = np.random.default_rng(seed)
    most = {"prompt_ids": 8, "chosen_ids": 9, "rejected_ids": 5}
    lengths = [{name: draw.integers(2, 2 + n) for name, n in most.items()} for _ in range(count)]
    return [{name: draw.integers(8, 128, length).tolist() for name, length in of.items()} for of in lengths]


def batch(rows: Sequence[Sequence[Pair]], references: Sequence[Sequence[float]]) -> Batch:
    """Rows of pairs as training packs them; `references` has chosen, rejected, chosen, ... of each row."""
    shape = len(rows), WIDTH
    ids, labels = np.full(shape, PAD, np.int64), np.full(shape, IGNORED, np.int64)
    positions, documents = np.tile(np.arange(WIDTH), (len(rows), 1)), np.full(shape, -1, np.int32)
    known = np.full((len(rows), max(map(len, references))), np.nan, np.float32)
    for row, (of_row, values) in enumerate(zip(rows, references, strict=True)):
        at = 0
        pieces = [
            (pair["prompt_ids"], pair[side]) for pair in of_row for side in ("chosen_ids", "rejected_ids")
        ]
        for number, (prompt, answer) in enumerate(pieces):
            whole = np.array([*prompt, *answer])
            here = slice(at, at + len(whole) - 1)
            ids[row, here], documents[row, here], positions[row, here] = (
                whole[:-1],
                number,
                np.arange(len(whole) - 1),
            )
            labels[row, at + len(prompt) - 1 : at + len(whole) - 1] = answer
            at += len(whole) - 1
        known[row, : len(values)] = values
    return Batch(ids, labels, positions, documents, known)


def tensors(*given: Any) -> dict[str, torch.Tensor]:
    return llama.tensors(batch(*given), torch.device("cpu"))


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def assert_same_gradients(
    model: torch.nn.Module, loss: torch.Tensor, expected: dict[str, torch.Tensor]
) -> None:
    for name, gradient in gradients(model, loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer with a model and another one as its reference; its batches are made by its own
    collator."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(CONFIG.vocab_size)}, "<0>"))
    options = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        use_cpu=True,
        bf16=False,
        report_to=[],
        beta=BETA,
        max_length=None,
    )
    return DPOTrainer(
        model=llama.build(CONFIG, 1, attention="eager"),
        ref_model=llama.build(CONFIG, 2, attention="eager"),
        args=options,
        train_dataset=Dataset.from_list([{"prompt": "<9>", "chosen": "<8>", "rejected": "<7>"}]),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<3>", eos_token="<2>"),
    )


def theirs(trl: Any, of: Sequence[Pair], loss_type: str = "sigmoid") -> tuple[torch.Tensor, list[float]]:
    """TRL's loss of pairs that are one batch, and what its reference gives them: chosen, rejected, chosen,
    ..."""
    inputs = trl.data_collator(list(of))
    chosen, rejected = trl.compute_ref_log_probs(trl.ref_model, inputs)
    trl.loss_types = [loss_type]
    loss = trl._compute_loss(trl.model, inputs, return_outputs=False)
    return loss, torch.stack([chosen, rejected], 1).flatten().tolist()


def test_loss_and_gradients_equal_those_of_trl_on_the_same_pairs(trl: Any) -> None:
    given = pairs(6)
    loss, references = theirs(trl, given)
    model = llama.build(CONFIG, 1)
    rows = [given[:1], given[1:4], given[4:]], [references[:2], references[2:8], references[8:]]
    ours = dpo(beta=BETA).loss(model, tensors(*rows))
    torch.testing.assert_close(ours[0] / 6, loss, rtol=1e-6, atol=0)
    assert_same_gradients(model, ours[0] / 6, gradients(trl.model, loss))


def test_label_smoothing_is_that_of_trl(trl: Any) -> None:
    """TRL has it with `aot`, which sorts the margins of a batch: of one pair alone it is conservative DPO's
    loss."""
    trl.label_smoothing = 0.2
    model = llama.build(CONFIG, 1)
    for pair in pairs(3, seed=1):
        loss, references = theirs(trl, [pair], "aot")
        ours = dpo(beta=BETA, label_smoothing=0.2).loss(model, tensors([[pair]], [references]))
        torch.testing.assert_close(ours[0], loss, rtol=1e-6, atol=0)
        assert_same_gradients(model, ours[0], gradients(trl.model, loss))


def test_what_is_told_beside_the_loss_is_what_trl_logs(trl: Any) -> None:
    given = pairs(5, seed=2)
    trl._metrics["train"].clear()
    trl.model.train()
    _, references = theirs(trl, given)
    logged = {name: values[0] for name, values in trl._metrics["train"].items()}
    with torch.no_grad():
        rows = tensors([given[:2], given[2:]], [references[:4], references[4:]])
        sums = dpo(beta=BETA).loss(llama.build(CONFIG, 1), rows)
    told = dict(zip(SUMS, (sums[1:] / 5).tolist(), strict=True))
    assert told["margin"] == pytest.approx(logged["rewards/margins"], rel=1e-4, abs=1e-6)
    assert told["accuracy"] == pytest.approx(logged["rewards/accuracies"])
    assert told["chosen_logprob"] == pytest.approx(logged["logps/chosen"], rel=1e-5)
    assert told["rejected_logprob"] == pytest.approx(logged["logps/rejected"], rel=1e-5)
    assert told["chosen_gain"] * BETA == pytest.approx(logged["rewards/chosen"], rel=1e-4, abs=1e-6)
    assert told["rejected_gain"] * BETA == pytest.approx(logged["rewards/rejected"], rel=1e-4, abs=1e-6)
    assert told["chosen_tokens"] == pytest.approx(np.mean([len(pair["chosen_ids"]) for pair in given]))
    assert told["rejected_tokens"] == pytest.approx(np.mean([len(pair["rejected_ids"]) for pair in given]))


def test_the_loss_of_a_pair_by_hand() -> None:
    margins = torch.tensor([0.0, 2.0])
    assert preference_loss.losses(margins, 0.5, 0.0).tolist() == pytest.approx(
        [math.log(2), math.log(1 + math.exp(-1))]
    )
    smoothed = 0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1))
    assert preference_loss.losses(margins, 0.5, 0.1).tolist() == pytest.approx([math.log(2), smoothed])


def test_rows_of_fewer_pairs_and_padding_count_nothing() -> None:
    model, given = llama.build(CONFIG, 1), pairs(3)
    references = [-20.0, -21.0, -22.0, -23.0, -24.0, -25.0]
    apart = [
        dpo().loss(model, tensors([[pair]], [references[2 * k : 2 * k + 2]])) for k, pair in enumerate(given)
    ]
    together = dpo().loss(model, tensors([given[:2], given[2:]], [references[:4], references[4:]]))
    torch.testing.assert_close(together, sum(apart), rtol=1e-5, atol=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients(model, together[0]).values())


@pytest.mark.parametrize("chunk", [1, 7, 128, 10_000])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_log_probabilities_and_gradients_are_those_of_all_logits_whatever_the_chunk(
    chunk: int, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_loss, "LEAST_CHUNK", chunk)
    monkeypatch.setattr(head_loss, "CHUNK_LOGITS", {"cpu": 1})
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 24, generator=draw).to(precision).requires_grad_()
    weight = torch.randn(517, 24, generator=draw).to(precision).requires_grad_()
    labels = torch.randint(0, 517, (40,), generator=draw)
    weights = torch.randn(40, generator=draw)
    ours = head_loss.log_probabilities(hidden, weight, labels)
    plain = (hidden.float() @ weight.float().t()).log_softmax(-1).gather(1, labels[:, None])[:, 0]
    near = {"rtol": 1e-5, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.03, "atol": 0.1}
    torch.testing.assert_close(ours, plain, **near)
    found = torch.autograd.grad((ours * weights).sum(), (hidden, weight))
    for mine, other in zip(
        found, torch.autograd.grad((plain * weights).sum(), (hidden, weight)), strict=True
    ):
        assert mine.dtype == precision
        torch.testing.assert_close(mine, other, **near)


def test_a_frozen_output_matrix_has_no_gradient() -> None:
    hidden, weight = torch.randn(5, 8).requires_grad_(), torch.randn(11, 8)
    head_loss.log_probabilities(hidden, weight, torch.arange(5)).sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
