"""A small crawl, recipes over it, and Ray for the tests that need it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctllm_ray.base import recipe
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.engine import section, splits
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split

WORDS = list("春天到了花开得很好我们去山里走了一天，水也清风也轻。他说：“明年再来。”孩子们笑着跑过桥！")


def page(seed: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choices(WORDS, k=draw.randrange(5, 200)))


def run_here(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
    """The plainest runner: one split after the other in this process."""
    for split in splits:
        yield section.run_split(recipe, folder, split)


def fill(disk: Path, left_bytes: int) -> Path:
    """A file that leaves that much of a file system free."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (free.f_bavail * free.f_bsize - left_bytes))
    return filler


@pytest.fixture(scope="package", autouse=True)
def split_for_each_file() -> Iterator[None]:
    """Small files do not share a split: so a few of them are work of many units."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(splits, "MAX_FILES", 1)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """Six jsonl files of 40 pages, one line in each broken."""
    folder = tmp_path / "crawl"
    folder.mkdir()
    for part in range(6):
        lines = [
            json.dumps(
                {"text": page(part * 100 + i), "url": f"http://host{i % 3}.example/{part}/{i}"},
                ensure_ascii=False,
            )
            for i in range(40)
        ]
        lines[7] = '{"text": "broken'
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def make(tmp_path: Path, crawl: Path) -> Callable[..., Recipe]:
    """A recipe over the crawl, with overrides of its keys."""

    def build(root: str = "out", **overrides: object) -> Recipe:
        plain = {
            "name": "small",
            "version": "1",
            "seed": 1,
            "root": str(tmp_path / root),
            "data": {"inputs": [{"use": "jsonl", "path": f"{crawl}/*.jsonl"}], "max_error_share": 0.1},
            "stages": [
                {
                    "use": "measure",
                    "genres": {"talk": [{"use": "document.sentence_count", "min": 5}]},
                    "rules": [
                        {"use": "document.char_count", "min": 60},
                        {"use": "repetition.covered_share", "n": 2, "max": 0.05, "unless": ["talk"]},
                    ],
                }
            ],
            "resources": {"workers": 2, "object_store_mb": 100},
        }
        return recipe.parse_recipe(plain | overrides)

    return build
