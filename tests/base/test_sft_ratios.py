"""The six cells of sft_ratios.yaml, as its head writes them: one recipe, whose Chinese part stays the
same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe

FILE = Path(__file__).parents[2] / "jobs" / "recipes" / "sft_ratios.yaml"
RATIOS = {"zh1_en1": 1.0, "zh2_en1": 2.0, "zh4_en1": 4.0, "zh8_en1": 8.0}


def cells() -> dict[str, Recipe]:
    """Each command of the head, as `ctllm train` would take it."""
    head = FILE.read_text(encoding="utf-8").splitlines()
    commands = [shlex.split(line[1:]) for line in head if line.startswith("#   ctllm train")]
    return {run(of): of for of in (recipes.load_recipe(str(FILE), words[3:]) for words in commands)}


def run(of: Recipe) -> str:
    assert of.train is not None
    return of.train.run


def positions(of: Recipe, group: str) -> float:
    assert of.train is not None
    [phase] = of.train.mixture
    return of.train.tokens * phase.shares.get(group, 0.0)


def test_there_are_six_cells_with_folders_of_their_own_and_one_set_of_shards() -> None:
    found = cells()
    assert set(found) == {*RATIOS, "zh", "en"}
    assert len({of.folder("train") for of in found.values()}) == 6
    assert len({of.folder("tokens") for of in found.values()}) == 1


def test_the_ratios_are_the_papers_and_the_chinese_part_stays_the_same() -> None:
    found = cells()
    chinese = positions(found["zh"], "zh")
    assert positions(found["en"], "en") == chinese
    for name, ratio in RATIOS.items():
        assert positions(found[name], "zh") == pytest.approx(chinese, rel=1e-5)
        assert positions(found[name], "zh") / positions(found[name], "en") == pytest.approx(ratio, rel=1e-4)
