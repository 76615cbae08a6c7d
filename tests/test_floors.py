"""The floors of the house: imports go down only, siblings never meet, heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ctllm_ray"
FLOOR = {
    "base": 0,
    "text": 1, "tokenizer": 1, "shards": 1, "model": 1, "sample": 1, "ray_session": 1, "secret_names": 1,
    "job_files": 2, "corpus": 2, "train": 2, "inference": 2,
    "submission": 3, "evaluate": 3, "mixture": 3, "lineage": 3,
    "verbs": 4,
    "cli": 5,
    "__main__": 6,
}  # fmt: skip
RAY_ROOMS = (
    "ray_session.py", "corpus/launch.py", "train/launch.py", "train/reference_launch.py", "train/trainer.py",
    "train/worker.py", "mixture/sweep.py", "submission.py",
)  # fmt: skip
SERVE = PACKAGE.parent / "serve"
SERVE_RAY_ROOMS = {"build", "counter", "ending", "engines", "evaluator", "ingress", "remote", "routing", "vllm"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ctllm_ray" and len(parts) > 1 and parts[1] in FLOOR else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only_and_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        there = room(module)
        if there is not None and there != here:
            assert FLOOR[there] < FLOOR[here], f"{name} imports {module}"
        top = module.partition(".")[0]
        assert top != "ray" or name in RAY_ROOMS, f"{name} imports ray"
        assert top != "torch" or here in {"model", "train", "inference"}, f"{name} imports torch"
        assert top != "deepspeed" or name == "train/deepspeed.py", f"{name} imports deepspeed"
        assert top != "vllm", f"{name} imports vllm"


@pytest.mark.parametrize("path", sorted(SERVE.rglob("*.py")), ids=lambda p: p.name)
def test_of_the_serving_side_few_files_know_ray_and_none_knows_torch(path: Path) -> None:
    for module in imports(path):
        top = module.partition(".")[0]
        assert top != "ray" or path.stem in SERVE_RAY_ROOMS, f"{path.name} imports ray"
        assert not module.startswith("ray.serve.llm") or path.stem == "vllm", f"{path.name} imports {module}"
        assert top not in {"torch", "deepspeed", "vllm"}, f"{path.name} imports {module}"


def test_base_imports_in_well_under_a_second_and_brings_neither_ray_nor_torch() -> None:
    code = (
        "import sys, ctllm_ray.base.recipe, ctllm_ray.base.storage\n"
        "print([m for m in ('ray', 'torch', 'numba', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
