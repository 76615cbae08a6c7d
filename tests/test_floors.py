"""The floors of the house: imports go down only, siblings never meet, heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "ctllm_ray"
#: From the ground up. What stands on one floor never imports a sibling; `docs/design.md` says what each is
#: for.
FLOORS = (
    {"base"},
    {"benchmark_files", "html_report", "secret_names", "token_bytes"},
    {"model", "ray_session", "sample", "shards", "text", "tokenizer"},
    {"corpus", "inference", "job_files", "train"},
    {"evaluate", "mixture", "submission"},
    {"lineage", "serving"},
    {"api"},
    {"__init__", "verbs"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
THIN = ("serve", "jobs")  # import paths and configurations: on top of all, and nobody imports them
RAY_FILES = {"launch.py", "ray_session.py", "submission.py"}
TORCH_ROOMS = {"model", "train", "inference"}
#: Packages that few files know: what imports a heavy package starts slowly and breaks with its releases.
FEW_FILES: dict[str, set[str]] = {
    "deepspeed": {"train/steppers/deepspeed.py"},
    "lm_eval": {"evaluate/harness.py", "evaluate/formats/native_items.py"},
    "ray.serve.llm": {"serving/ray/engines/vllm.py"},
    "vllm": set(),
}
FILES = sorted(PACKAGE.rglob("*.py"))
THIN_FILES = sorted(file for folder in THIN for file in (REPOSITORY / folder).rglob("*.py"))
ROOMS = [folder for folder in sorted(PACKAGE.rglob("*")) if folder.is_dir() and list(folder.glob("*.py"))]


def read_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ctllm_ray" and len(parts) > 1 and parts[1] in FLOOR_OF else None


def knows_ray(path: Path) -> bool:
    """Whether a file may import Ray: those that launch work, and the rooms called `ray`."""
    return path.name in RAY_FILES or "ray" in path.relative_to(PACKAGE).parts or path.name == "deployment.py"


def test_every_room_stands_on_a_floor() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only_and_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in read_imports(path):
        there = room_of(module)
        if there is not None and there != here:
            assert FLOOR_OF[there] < FLOOR_OF[here], f"{name} imports {module}"
        top = module.partition(".")[0]
        assert top not in THIN, f"{name} imports {module}"
        assert top != "ray" or knows_ray(path), f"{name} imports ray"
        assert top != "torch" or here in TORCH_ROOMS, f"{name} imports torch"
        for package, files in FEW_FILES.items():
            assert (module != package and not module.startswith(f"{package}.")) or name in files, (
                f"{name} imports {module}"
            )


@pytest.mark.parametrize("path", THIN_FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_serve_and_jobs_are_thin(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 20
    for module in read_imports(path):
        assert module.partition(".")[0] in {"ctllm_ray", "sys"}, f"{path.name} imports {module}"


@pytest.mark.parametrize("folder", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_folder_holds_at_most_twenty_things(folder: Path) -> None:
    things = [thing for thing in folder.iterdir() if not thing.name.startswith("__")]
    assert len(things) <= 20, sorted(thing.name for thing in things)


def test_base_imports_in_well_under_a_second_and_brings_neither_ray_nor_torch() -> None:
    code = (
        "import sys, ctllm_ray.base.recipe, ctllm_ray.base.storage\n"
        "print([m for m in ('ray', 'torch', 'numba', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
