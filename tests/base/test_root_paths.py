"""Paths that stand below a recipe's root mean the same wherever the root is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.errors import NotFound
from ctllm_ray.base.recipe import Recipe


def rooted(root: Path, path: str = "") -> Recipe:
    model = {"model": {"path": path}} if path else {}
    data = {"inputs": [], "max_error_share": 0}
    plain = {"name": "tiny", "version": "1", "seed": 0, "data": data, "stages": [], "root": str(root)}
    return recipes.parse_recipe(plain | model)


def exported(root: Path, *names: str) -> None:
    for name in names:
        storage.write_json(str(root / "base" / "1" / name / "lineage.json"), {})


def test_a_path_below_the_root_follows_it_and_others_stay(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "other"):
        assert rooted(root).locate("root:base/1/tokenizer") == f"{root}/base/1/tokenizer"
        assert rooted(root).locate("elsewhere/folder") == "elsewhere/folder"
        assert rooted(root).locate("") == ""


def test_of_a_folder_of_exports_the_newest_finished_one_is_meant(tmp_path: Path) -> None:
    exported(tmp_path, "export/8", "export/64", "export/9", "export-long/7")
    (tmp_path / "base" / "1" / "export" / "128").mkdir()  # begun, no lineage yet
    assert rooted(tmp_path).locate("root:base/1/export") == f"{tmp_path}/base/1/export/64"
    assert rooted(tmp_path).locate("root:base/1/export/") == f"{tmp_path}/base/1/export/64"
    assert rooted(tmp_path).locate("root:base/1/export-long") == f"{tmp_path}/base/1/export-long/7"
    assert rooted(tmp_path).locate("root:base/1/export/8") == f"{tmp_path}/base/1/export/8"


def test_where_nothing_is_exported_yet_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="ctllm export"):
        rooted(tmp_path).locate("root:base/1/export")


def test_where_the_root_is_decides_nothing(tmp_path: Path) -> None:
    exported(tmp_path, "export/8")
    here, there = (rooted(root, "root:base/1/export") for root in (tmp_path, tmp_path / "other"))
    assert here.decisions("train") == there.decisions("train")
