"""Recipes: wrong names are refused with the nearest valid one, overrides reach every place, fingerprints
decisions."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from ctllm_ray.base import errors, recipe
from ctllm_ray.base.decisions import changes, fingerprint
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe_rules import Rule

PLAIN = {
    "name": "small",
    "version": "1",
    "seed": 1,
    "data": {"inputs": [{"use": "jsonl", "path": "crawl/*.jsonl"}], "max_error_share": 0.01},
    "stages": [{"use": "measure", "rules": [{"use": "document.char_count", "min": 50}]}],
}


def written(folder: Path, plain: dict) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
    return str(path)


def test_a_recipe_is_filled_in_and_frozen(tmp_path: Path) -> None:
    loaded = recipe.load_recipe(written(tmp_path, PLAIN), ["root=there"])
    assert loaded.data.inputs[0].name == "crawl"
    assert loaded.folder("clean") == str(Path.cwd() / "there/small/1/clean")
    assert loaded.stages[0].model_extra["rules"][0]["name"] == "document.char_count"
    with pytest.raises(ValueError, match="frozen"):
        loaded.name = "other"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataa": 1}, "did you mean 'data'"),
        ({"data": PLAIN["data"] | {"max_error_shar": 0}}, "did you mean 'max_error_share'"),
        ({"stages": [{"use": "mesure"}]}, "did you mean 'measure'"),
        ({"stages": [{"use": "measure", "rule": []}]}, "did you mean 'rules'"),
        (
            {"stages": [{"use": "measure", "rules": [{"use": "document.char_cout", "min": 1}]}]},
            "document.char_count",
        ),
        (
            {"stages": [{"use": "measure", "rules": [{"use": "repetition.covered_share", "m": 5}]}]},
            "unknown option 'm'",
        ),
        (
            {"stages": [{"use": "measure", "rules": [{"use": "repetition.covered_share", "n": 11}]}]},
            "option 'n'",
        ),
        (
            {"stages": [{"use": "measure", "rules": [{"use": "document.char_count", "min": 9, "max": 3}]}]},
            "at least 9",
        ),
        ({"data": {"inputs": [{"use": "json", "path": "x"}], "max_error_share": 0}}, "did you mean 'jsonl'"),
        ({"data": {"inputs": []}}, "'data.max_error_share' is missing"),
        ({"data": PLAIN["data"] | {"max_error_share": 1.5}}, "less than or equal to 1"),
        ({"seed": "abc"}, "seed"),
        ({"name": "a/b"}, "name"),
        (
            {
                "data": PLAIN["data"]
                | {"inputs": [{"use": "jsonl", "path": "a/x"}, {"use": "jsonl", "path": "a/y"}]}
            },
            "two inputs",
        ),
    ],
)
def test_a_wrong_recipe_is_one_message_with_the_remedy(tmp_path: Path, change: dict, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.load_recipe(written(tmp_path, PLAIN | change))
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError):
        recipe.load_recipe(str(tmp_path / "bad.yaml"))
    with pytest.raises(RecipeError, match="the recipe file does not exist"):
        recipe.load_recipe(str(tmp_path / "none.yaml"))


def test_an_override_reads_its_value_from_a_file(tmp_path: Path) -> None:
    path, bounds = written(tmp_path, PLAIN), tmp_path / "rules.yaml"
    bounds.write_text("# chosen\n- {use: document.char_count, min: 9}\n", encoding="utf-8")
    loaded = recipe.load_recipe(path, [f"stages.0.rules=@{bounds}"])
    assert [rule["min"] for rule in loaded.stages[0].model_extra["rules"]] == [9]
    bounds.write_text("- {use: [", encoding="utf-8")
    with pytest.raises(RecipeError, match="not YAML") as caught:
        recipe.load_recipe(path, [f"stages.0.rules=@{bounds}"])
    assert caught.value.where == str(bounds)
    with pytest.raises(InputError, match="No such file"):
        recipe.load_recipe(path, ["stages=@nowhere.yaml"])


def test_overrides_reach_keys_list_items_and_rules_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    loaded = recipe.load_recipe(
        path,
        [
            "data.inputs=[{use: jsonl, path: 'b/*.zst', text: raw_content}]",
            "stages.measure.rules.document.char_count.max=900",
            "stages.0.rules.0.min=7",
            "resources.workers=2",
        ],
    )
    rule = loaded.stages[0].model_extra["rules"][0]
    assert (rule["min"], rule["max"], loaded.resources.workers) == (7, 900, 2)
    assert loaded.data.inputs[0].model_extra["text"] == "raw_content"
    for bad in ["rootless", "=1", "name.x=1", "stages.9.use=x", "root=[1"]:
        with pytest.raises(RecipeError):
            recipe.load_recipe(path, [bad])


def test_the_fingerprint_sees_decisions_and_not_where_or_how_wide(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)

    def of(*overrides: str) -> str:
        return fingerprint(recipe.load_recipe(path, overrides).decisions())

    assert of() == of("root=elsewhere", "resources.workers=2", "data.max_error_share=0.5")
    assert of() != of("seed=2")
    assert of() != of("stages.measure.rules.document.char_count.min=51")


def test_a_folder_says_where_it_is_to_a_worker_that_stands_elsewhere(tmp_path: Path) -> None:
    def of(root: str) -> str:
        return recipe.load_recipe(written(tmp_path, PLAIN), [f"root={root}"]).folder("clean")

    assert of("s3://bucket/run/") == "s3://bucket/run/small/1/clean"
    assert of("/data/run") == of("file:///data/run") == "/data/run/small/1/clean"
    assert of("out") == f"{Path.cwd()}/out/small/1/clean"


def test_changes_name_the_fields(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    old = recipe.load_recipe(path).decisions()
    new = recipe.load_recipe(path, ["seed=2", "stages.measure.rules.document.char_count.min=51"]).decisions()
    assert changes(old, new) == ["seed: 1 -> 2", "stages.measure.rules.document.char_count.min: 50.0 -> 51.0"]


def test_bounds_are_inclusive_or_exclusive_as_named_and_nan_passes() -> None:
    scores = np.array([0.0, 0.3, 0.5, np.nan], np.float32)

    def broken(**bounds: float) -> list[bool]:
        return Rule(use="document.digit_share", **bounds).find_violations(scores)[0].tolist()

    assert broken(min=0.3) == [True, False, False, False]
    assert broken(above=0.3) == [True, True, False, False]
    assert broken(max=0.3) == [False, False, True, False]
    assert broken(below=0.3) == [False, True, True, False]
    assert broken() == [False] * 4


def test_a_bound_equals_the_same_share_in_float32() -> None:
    """3/10 in float32 is above 0.3 in float64: bounds are compared in float32, so the page with exactly 0.3
    passes."""
    score = np.array([3 / 10], np.float32)
    assert not Rule(use="document.digit_share", max=0.3).find_violations(score)[0][0]


def test_errors_survive_pickling_with_their_remedy() -> None:
    error = errors.StorageError("disk full", where="s3://b/k", remedy="free space")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.StorageError
    assert str(copy) == str(error)
    assert copy.exit_code == 5
