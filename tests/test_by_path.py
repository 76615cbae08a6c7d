"""A name is a path, everywhere: each of these is added by one file, and nothing else of the package knows of it.

The file stands in a folder that is joined to the package's path for the test.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ctllm_ray.base import exports, resolve
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import Sampling
from ctllm_ray.mixture import quality
from ctllm_ray.model.fingerprint import hash_model
from ctllm_ray.serving.ray.engine_deployments import EngineReplica
from ctllm_ray.train.schedule import phase_at, rate
from ctllm_ray.train.tracking.open_trackers import open_trackers
from tests.conftest import AddModule
from tests.train import pair_runs, tiny_runs


def test_an_engine(add_module: AddModule, tmp_path: Path) -> None:
    add_module(
        resolve.ENGINES,
        "echo",
        """
        from tests.inference.scripted_engine import ScriptedEngine

        def open_engine(folder, serve):
            return ScriptedEngine(slots=serve.slots)
        """,
    )
    pair_runs.recipe(tmp_path)  # writes a model
    model, serve = str(tmp_path / "model"), Serve(engine="echo", slots=3)
    replica = EngineReplica(model, hash_model(model), serve.model_dump(mode="json"))

    async def ask() -> list[int]:
        outputs = replica.generate([7, 8], Sampling(max_tokens=3))
        return [token.id async for output in outputs for token in output.tokens]

    assert asyncio.run(ask()) == [7, 8, 7]
    assert asyncio.run(replica.load()).slots == 3


def test_an_engine_that_does_not_exist_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    plain = pair_runs.recipe(tmp_path).model_dump(mode="json")
    with pytest.raises(RecipeError, match="unknown engine 'vlm'") as error:
        pair_runs.recipes.parse_recipe(plain | {"serve": {"engine": "vlm"}})
    assert error.value.remedy == "did you mean 'vllm'? valid names: torch, vllm"


def test_a_schedule_with_an_option_of_its_own(add_module: AddModule, tmp_path: Path) -> None:
    add_module(
        resolve.SCHEDULES,
        "halving",
        """
        from ctllm_ray.train.schedule import Decay

        def halving(*, warmup_tokens: int, total_tokens: int, halvings: int) -> Decay:
            return Decay(warmup_tokens, lambda progress: 0.5 ** (halvings * progress))
        """,
    )
    schedule = {"use": "halving", "peak_rate": 0.8, "warmup_tokens": 100, "halvings": 3}
    recipe = pair_runs.recipe(tmp_path, schedule=schedule)
    used = recipe.training()[1].schedule
    assert [rate(used, tokens, 400) for tokens in (50, 100, 200, 300, 400)] == pytest.approx(
        [0.4, 0.8, 0.4, 0.2, 0.1]
    )
    assert (phase_at(used, 100, 400), phase_at(used, 101, 400)) == ("stable", "decay")
    with pytest.raises(RecipeError, match="unknown option 'halfings'") as error:
        pair_runs.recipe(tmp_path, schedule=schedule | {"halfings": 3})
    assert "did you mean 'halvings'" in error.value.remedy
    with pytest.raises(RecipeError, match="option 'halvings'"):
        pair_runs.recipe(tmp_path, schedule=schedule | {"halvings": "three"})


def test_a_pair_objective_without_a_reference(add_module: AddModule, tmp_path: Path) -> None:
    """SimPO (Meng et al. 2024): the mean log-probability of an answer's tokens, and a margin."""
    add_module(
        resolve.OBJECTIVES,
        "simpo",
        """
        from dataclasses import dataclass

        import torch
        import torch.nn.functional as F

        from ctllm_ray.train.losses import preference_loss

        @dataclass(frozen=True)
        class Simple:
            beta: float
            per: str = "pair"
            needs_reference: bool = False
            teaches_chat: bool = True
            sums: tuple[str, ...] = ("pairs_seen",)

            def loss(self, model, tensors):
                references = tensors["references"]
                assert not references[references.isfinite()].any()
                logs, tokens = preference_loss.of_pieces(model, tensors, references.shape[1])
                means = logs / tokens.clamp(min=1)
                is_pair = references[:, 0::2].isfinite()
                losses = -F.logsigmoid(self.beta * (means[:, 0::2] - means[:, 1::2]))
                told = torch.stack([losses, torch.ones_like(losses)])
                return torch.where(is_pair, told, 0).sum((1, 2))

        def simpo(*, beta: float = 2.0) -> Simple:
            return Simple(beta)
        """,
    )
    recipe = pair_runs.recipe(tmp_path, batches=30, objective={"use": "simpo"}, run="simpo")
    state, losses, _ = tiny_runs.run(recipe)
    assert state.batch == 30
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05  # it learns that chosen answers hold low ids
    assert not Path(recipe.folder("reference")).exists()
    assert not exports.is_base({"recipe": recipe.decisions("train")})


def test_a_law_takes_part_in_every_sweep(add_module: AddModule) -> None:
    add_module(
        resolve.LAWS,
        "mean",
        """
        import numpy as np

        NAME = ("平均", "mean")

        def count(groups):
            return 1

        def fit(shares_NG, losses_DN, kept_DN):
            return (losses_DN * kept_DN).sum(1, keepdims=True) / kept_DN.sum(1, keepdims=True)

        def predict(parameters, shares_NG):
            return np.full(len(shares_NG), parameters[0])
        """,
    )
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], 12)
    bits = {"web": np.exp(shares @ np.array([1.0, 2.0, 3.0]))}
    fits = quality.fits(shares, bits, {"web": 1.0}, seed=0)
    assert [fit.law for fit in fits][-1] == "mean"  # it errs most
    assert fits[-1].predict({"web": 1.0}, shares[:1])[0] == pytest.approx(bits["web"].mean())


def test_a_tracker(add_module: AddModule, tmp_path: Path) -> None:
    add_module(
        resolve.TRACKERS,
        "lines",
        """
        from pathlib import Path

        def open_tracker(run):
            return Lines(Path(run.settings["to"]), run.name)

        class Lines:
            def __init__(self, path, name):
                self._file = path.open("w")
                print(name, file=self._file)

            def values(self, step, values):
                print(step, values, file=self._file)

            def note(self, step, kind, text):
                print(step, kind, text, file=self._file)

            def flush(self):
                self._file.flush()

            def close(self):
                self._file.close()
        """,
    )
    pair_runs.recipe(tmp_path, resources={"trackers": ["lines"]})
    path = tmp_path / "lines.txt"
    _, lines = open_trackers(("lines",), str(tmp_path), "p", "b5", {"to": str(path)}, 1)
    lines.values(1, {"loss": 2.0})
    lines.note(1, "spike", "why")
    lines.close()
    assert (path.read_text(), lines.failure) == ("b5\n1 {'loss': 2.0}\n1 spike why\n", "")
