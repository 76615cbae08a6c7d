"""The DeepSpeed stepper: every stage gives what the plain stepper gives, and takes what any other saved.

Two ranks are started once and do all of it; the tests look at what they wrote down.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import MixturePhase, ObjectivePart, Schedule, Train, TrainResources
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.train.data.batch import IGNORED, Batch
from ctllm_ray.train.objectives.pretrain import pretrain
from ctllm_ray.train.steppers import deepspeed
from ctllm_ray.train.steppers.deepspeed import DeepSpeedStepper
from ctllm_ray.train.steppers.torch import TorchStepper

#: ZeRO 3 keeps parameters below 100,000 elements whole: the embeddings are above, the rest below.
CONFIG = ModelConfig(2, 256, 4, 4, 64, 256, 512, 64)
SEQUENCES, TOKENS, PIECES = 8, 32, 512
BEFORE, DISCARDED, AFTER = (0, 1), 2, (3, 4)  # numbers of batches; the state is saved after the discarded one
RATE = 1e-3
STEPPERS = ("torch", "zero-0", "zero-1", "zero-2", "zero-3")
#: fp32 sums in another order. PyTorch's norm of one long vector on a CPU is off by 1e-5 (a million elements)
#: to 1e-3 (16 million). A gradient of 1e-8 may change its sign, and Adam's whole step with it: one weight in
#: 10,000 is let off.
NEAR = {"loss": 5e-6, "norm": 2e-4, "weight": 1e-5}


def train_part(precision: Any = "fp32") -> Train:
    return Train(
        objective=ObjectivePart(use="pretrain"),
        tokens=SEQUENCES * TOKENS * 10,
        batch_tokens=SEQUENCES * TOKENS,
        sequence_tokens=TOKENS,
        packing="concatenate",
        document_attention=True,
        mixture=(MixturePhase(shares={"a": 1.0}),),
        schedule=Schedule(use="cosine", peak_rate=RATE, warmup_tokens=0),
        precision=precision,
    )


def micro_batches(number: int, rank: int, world: int) -> tuple[list[Batch], int]:
    """A rank's rows of a global batch, two at a time, and the targets of all rows; rows are padded
    unevenly."""
    random = np.random.default_rng(number)
    ids = random.integers(0, PIECES, (SEQUENCES, TOKENS))
    labels = random.integers(0, PIECES, (SEQUENCES, TOKENS))
    for row in range(SEQUENCES):
        labels[row, random.integers(4, TOKENS) :] = IGNORED
    positions = np.broadcast_to(np.arange(TOKENS), ids.shape)
    documents = np.zeros(ids.shape, np.int32)
    first, last = rank * SEQUENCES // world, (rank + 1) * SEQUENCES // world
    rows = [slice(row, row + 2) for row in range(first, last, 2)]
    return [Batch(ids[r], labels[r], positions[r], documents[r]) for r in rows], int(
        (labels != IGNORED).sum()
    )


def stepper(name: str, rank: int, world: int, precision: str = "fp32", **resources: Any) -> Any:
    kind, _, stage = name.partition("-")
    made = TorchStepper if kind == "torch" else DeepSpeedStepper
    options = TrainResources(zero_stage=int(stage or 0), micro_sequences=2, **resources)
    return made(llama.build(CONFIG, 5), pretrain().loss, train_part(precision), options, rank, world)


def steps(trained: Any, numbers: tuple[int, ...]) -> list[tuple[float, float]]:
    """Loss and gradient norm of each."""
    found = []
    for number in numbers:
        loss = trained.backward(*micro_batches(number, trained.rank, trained.world))
        found.append((float(loss), float(trained.apply(RATE))))
    return found


def gathered(trained: Any) -> tuple[dict[str, torch.Tensor], int]:
    """The whole state, the same on all ranks, and how many tensors the ranks handed out together."""
    parts: list[Any] = [None] * trained.world
    dist.all_gather_object(parts, dict(trained.tensors()))
    return {name: tensor for part in parts for name, tensor in part.items()}, sum(map(len, parts))


def one_life(name: str, rank: int, precision: str = "fp32", **resources: Any) -> dict[str, Any]:
    """Trains, discards, saves, trains on; then the same from what was saved, anew and in the running
    engine."""
    trained = stepper(name, rank, 2, precision, **resources)
    losses = steps(trained, BEFORE)
    before, _ = gathered(trained)
    trained.backward(*micro_batches(DISCARDED, rank, 2))
    trained.discard()
    saved, count = gathered(trained)
    losses += steps(trained, AFTER)
    life: dict[str, Any] = {
        "losses": losses, "before": before, "saved": saved, "count": count, "end": gathered(trained)[0]
    }  # fmt: skip
    for again, engine in (("anew", stepper(name, rank, 2, precision, **resources)), ("rewound", trained)):
        engine.load(saved.__getitem__, len(BEFORE))
        life[again] = {"losses": steps(engine, AFTER), "end": gathered(engine)[0]}
    return life


def one_rank(rank: int, folder: str) -> None:
    """All that two ranks do together; rank 0 writes it down."""
    os.environ |= {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    lives = {name: one_life(name, rank) for name in STEPPERS}
    lives |= {f"bf16 {name}": one_life(name, rank, "bf16") for name in STEPPERS[2:]}
    lives["checkpointed"] = one_life("zero-3", rank, activation_checkpointing=True)
    for saved_by, loaded_by in (
        ("zero-1", "zero-3"),
        ("zero-3", "zero-2"),
        ("torch", "zero-1"),
        ("zero-2", "torch"),
    ):
        taken = stepper(loaded_by, rank, 2)
        taken.load(lives[saved_by]["saved"].__getitem__, len(BEFORE))
        lives[f"{saved_by} to {loaded_by}"] = {"losses": steps(taken, AFTER), "end": gathered(taken)[0]}
    if rank == 0:
        torch.save(lives, f"{folder}/lives.pt")
    dist.destroy_process_group()


def one_worker(folder: str) -> None:
    """What a lone worker does, without any group or compiler to begin with."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PATH": "/nowhere", "TORCH_EXTENSIONS_DIR": f"{folder}/extensions"}
    torch.set_num_threads(1)
    saved = torch.load(f"{folder}/lives.pt")["zero-1"]["saved"]
    found: dict[str, Any] = {"reason": deepspeed.reason_not_to_start(TrainResources())}
    for name in ("zero-2", "torch"):
        taken = stepper(name, 0, 1)
        taken.load(saved.__getitem__, len(BEFORE))
        found[name] = {"losses": steps(taken, AFTER), "end": dict(taken.tensors())}
    for name in ("zero-0", "zero-1", "zero-3"):
        trained = stepper(name, 0, 1)
        steps(trained, BEFORE)
        before = dict(trained.tensors())
        trained.backward(micro_batches(DISCARDED, 0, 1)[0], float("nan"))  # type: ignore[arg-type]
        norm = float(trained.apply(RATE))
        found[f"not a number {name}"] = {"norm": norm, "before": before, "after": dict(trained.tensors())}
    torch.save(found, f"{folder}/alone.pt")


def run(jobs: list[tuple[Any, tuple[Any, ...]]]) -> None:
    """Runs functions beside each other, each in a process of its own."""
    context = multiprocessing.get_context("forkserver")  # what is slow to import is imported once
    context.set_forkserver_preload(
        ["ctllm_ray.train.session", "transformers.models.llama.modeling_llama", "deepspeed"]
    )
    processes = [context.Process(target=job, args=arguments) for job, arguments in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(jobs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def lives(folder: Path) -> dict[str, Any]:
    run([(one_rank, (rank, str(folder))) for rank in range(2)])
    return torch.load(folder / "lives.pt")


@pytest.fixture(scope="module")
def alone(folder: Path, lives: dict[str, Any]) -> dict[str, Any]:
    run([(one_worker, (str(folder),))])
    return torch.load(folder / "alone.pt")


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part, column in (("loss", 0), ("norm", 1)):
        values = ([step[column] for step in life["losses"]] for life in (found, expected))
        np.testing.assert_allclose(*values, rtol=NEAR[part])
    assert found["end"].keys() == expected["end"].keys()
    for name, tensor in found["end"].items():
        differences = (tensor - expected["end"][name]).abs()
        assert float((differences > NEAR["weight"]).double().mean()) < 1e-4
        assert float(differences.max()) < RATE


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == expected["losses"][-len(AFTER) :]
    assert found["end"].keys() == expected["end"].keys()
    assert all(torch.equal(tensor, expected["end"][name]) for name, tensor in found["end"].items())


@pytest.mark.parametrize("name", STEPPERS[1:])
def test_every_zero_stage_gives_the_losses_and_weights_of_the_plain_stepper(
    lives: dict[str, Any], name: str
) -> None:
    assert_near(lives[name], lives["torch"])


@pytest.mark.parametrize("name", [*STEPPERS, "checkpointed", "bf16 zero-1", "bf16 zero-2", "bf16 zero-3"])
@pytest.mark.parametrize("again", ["anew", "rewound"])
def test_loading_what_was_saved_equals_never_stopping(lives: dict[str, Any], name: str, again: str) -> None:
    assert_equal(lives[name][again], lives[name])


@pytest.mark.parametrize("name", [*STEPPERS, "bf16 zero-1", "bf16 zero-2", "bf16 zero-3"])
def test_discarded_gradients_leave_no_trace(lives: dict[str, Any], name: str) -> None:
    before, saved = lives[name]["before"], lives[name]["saved"]
    assert all(torch.equal(tensor, before[tensor_name]) for tensor_name, tensor in saved.items())


@pytest.mark.parametrize("name", STEPPERS)
def test_each_tensor_of_the_state_comes_from_exactly_one_rank(lives: dict[str, Any], name: str) -> None:
    names = {parameter for parameter, _ in llama.build(CONFIG, 5).named_parameters()}
    expected = {f"{part}.{parameter}" for part in ("model", "exp_avg", "exp_avg_sq") for parameter in names}
    assert lives[name]["saved"].keys() == expected
    assert lives[name]["count"] == len(expected)


@pytest.mark.parametrize(
    "pair", ["zero-1 to zero-3", "zero-3 to zero-2", "torch to zero-1", "zero-2 to torch"]
)
def test_what_one_stepper_saved_another_goes_on_with(lives: dict[str, Any], pair: str) -> None:
    whole = lives[pair.partition(" to ")[0]]
    assert_near(lives[pair], {"losses": whole["losses"][-len(AFTER) :], "end": whole["end"]})


def test_one_worker_goes_on_with_what_two_saved(lives: dict[str, Any], alone: dict[str, Any]) -> None:
    whole = lives["zero-1"]
    for name in ("zero-2", "torch"):
        assert_near(alone[name], {"losses": whole["losses"][-len(AFTER) :], "end": whole["end"]})


@pytest.mark.parametrize("name", ["zero-0", "zero-1", "zero-3"])
def test_a_gradient_that_is_no_number_changes_nothing_and_is_told(alone: dict[str, Any], name: str) -> None:
    found = alone[f"not a number {name}"]
    assert found["norm"] == float("inf")
    assert all(
        torch.equal(tensor, found["before"][tensor_name]) for tensor_name, tensor in found["after"].items()
    )


def test_deepspeed_starts_on_a_cpu_without_a_compiler(alone: dict[str, Any]) -> None:
    assert alone["reason"] == ""
    assert alone["zero-2"]["losses"]


def test_offloading_without_zero_is_refused_with_the_remedy() -> None:
    with pytest.raises(RecipeError, match="zero_stage"):
        stepper("zero-0", 0, 1, offload=True)


def test_offloading_without_a_compiler_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    reason = deepspeed.reason_not_to_start(TrainResources(offload=True))
    assert "g++" in reason
    assert "ninja" in reason


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    assert "pip install deepspeed" in deepspeed.reason_not_to_start(TrainResources())


def test_only_locks_that_no_process_holds_and_that_are_old_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    stale, young, held = (tmp_path / name / "lock" for name in ("cpu_adam", "fused_adam", "shm"))
    for lock in (stale, young, held):
        lock.parent.mkdir()
        lock.touch()
    for lock in (stale, held):
        os.utime(lock, (time.time() - 3600,) * 2)
    with held.open():
        assert deepspeed.remove_stale_locks() == [str(stale)]
    assert [lock.exists() for lock in (stale, young, held)] == [False, True, True]
