"""The pretraining loss equals plain cross-entropy, in value and in gradients, without ever holding all
logits."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.train.data.batch import IGNORED
from ctllm_ray.train.losses import head_loss
from ctllm_ray.train.objectives.pretrain import pretrain

BATCH, TOKENS, WIDTH, PIECES = 3, 70, 24, 517


@pytest.fixture
def parts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(BATCH, TOKENS, WIDTH, generator=draw)
    weight = torch.randn(PIECES, WIDTH, generator=draw)
    labels = torch.randint(0, PIECES, (BATCH, TOKENS), generator=draw)
    labels[0, :5], labels[2, -30:] = IGNORED, IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(
        (hidden @ weight.t()).flatten(0, 1).float(), labels.flatten(), reduction="sum", ignore_index=IGNORED
    )


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss / 7, of)


@pytest.mark.parametrize("chunk", [1, 64, 128, 10_000])
def test_the_loss_and_its_gradients_equal_cross_entropy_whatever_the_chunk(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight, labels = parts
    monkeypatch.setattr(head_loss, "LEAST_CHUNK", chunk)
    monkeypatch.setattr(head_loss, "CHUNK_LOGITS", {"cpu": 1})
    ours, theirs = head_loss.nats(hidden, weight, labels), plain(hidden, weight, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    for mine, other in zip(gradients(ours, hidden, weight), gradients(theirs, hidden, weight), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_without_gradients_the_sum_is_the_same_and_nothing_is_kept(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    hidden, weight, labels = parts
    with torch.inference_mode():
        ours = head_loss.nats(hidden, weight, labels)
    torch.testing.assert_close(ours, plain(hidden, weight, labels).detach(), rtol=1e-6, atol=0)
    assert not ours.requires_grad


def test_a_frozen_output_matrix_gets_no_gradient(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    hidden, weight, labels = parts
    loss = head_loss.nats(hidden, weight.detach(), labels)
    (mine,) = gradients(loss, hidden)
    (other,) = gradients(plain(hidden, weight, labels), hidden)
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_under_autocast_products_are_bf16_and_the_sum_and_the_matrix_gradient_stay_fp32(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    hidden, weight, labels = parts
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = head_loss.nats(hidden, weight, labels), plain(hidden, weight, labels)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=0)
    mine, other = gradients(ours, hidden, weight), gradients(theirs, hidden, weight)
    assert mine[1].dtype == torch.float32
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


def test_padding_alone_has_no_loss_and_no_gradient(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    hidden, weight, labels = parts
    loss = head_loss.nats(hidden, weight, torch.full_like(labels, IGNORED))
    assert float(loss.detach()) == 0
    assert all(not bool(gradient.any()) for gradient in gradients(loss, hidden, weight))


def test_the_objective_is_the_sum_over_targets_of_the_models_own_loss() -> None:
    shape = ModelConfig(2, 32, 4, 4, 8, 64, 97, 32, tied=True)
    model = llama.build(shape, 3)
    ids = torch.randint(0, 97, (2, 16))
    labels = torch.roll(ids, -1, 1)
    labels[:, -1] = IGNORED
    ours = pretrain().loss(model, {"input_ids": ids, "labels": labels})
    logits = model(input_ids=ids, use_cache=False).logits
    theirs = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED)
    torch.testing.assert_close(ours[0], theirs, rtol=1e-5, atol=0)


def test_the_largest_tensor_of_the_loss_is_a_chunk_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_loss, "CHUNK_LOGITS", {"cpu": 1})
    hidden = torch.randn(2048, 8, requires_grad=True)
    weight = torch.randn(5000, 8, requires_grad=True)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, given=(), named=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = function(*given, **(named or {}))
            largest = max(
                [
                    largest,
                    *(t.numel() for t in (out if isinstance(out, tuple) else [out]) if torch.is_tensor(t)),
                ]
            )
            return out

    with Watch():
        head_loss.nats(hidden, weight, torch.zeros(2048, dtype=torch.int64)).backward()
    assert largest == head_loss.LEAST_CHUNK * 5000  # and not 2048 x 5000


def test_control_options_need_a_score_and_a_share() -> None:
    with pytest.raises(RecipeError, match="need a control_score"):
        pretrain(control_max=2.0)
    with pytest.raises(RecipeError, match="control_drop_share is 2"):
        pretrain(control_score="quality", control_drop_share=2.0)
    assert pretrain(control_score="quality", control_max=2.0).control_score == "quality"


def test_the_fused_loss_says_what_it_needs() -> None:
    with pytest.raises(RecipeError, match="needs an NVIDIA GPU"):
        head_loss.check_fused(gpu=False)
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="liger-kernel is not installed"):
            head_loss.check_fused(gpu=True)


def test_naming_an_objective_in_a_recipe_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom ctllm_ray.base import resolve\nresolve.resolve(resolve.OBJECTIVES, 'pretrain')()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
