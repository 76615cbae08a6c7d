"""The functions of `ctllm_ray`: what the commands do, for Python."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ctllm_ray
from ctllm_ray import api
from ctllm_ray.base.errors import NotFound, RecipeError
from ctllm_ray.base.recipe import Recipe, load_recipe
from ctllm_ray.corpus import pipeline
from tests.conftest import REPOSITORY
from tests.corpus.conftest import run_here
from tests.test_readme import blocks

HOW_TO = REPOSITORY / "docs/how-to/python.md"
TINY = str(REPOSITORY / "jobs/recipes/tiny.yaml")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository's, with the sample's pages prepared with `tiny` below out/."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "jobs").symlink_to(REPOSITORY / "jobs")
    pipeline.prepare(load_recipe(TINY, [f"root={folder}/out"]), run_here)
    return folder


@pytest.fixture
def tiny(prepared: Path) -> Recipe:
    return load_recipe(TINY, [f"root={prepared}/out"])


def test_the_package_imports_in_well_under_a_second_and_brings_neither_ray_nor_torch() -> None:
    code = (
        "import sys, time; began = time.process_time(); import ctllm_ray; from ctllm_ray import prepare_data\n"
        "print(time.process_time() - began)\n"
        "print([m for m in ('ray', 'torch', 'numba', 'pyarrow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 0.5
    assert heavy == "[]"


def test_every_public_name_is_a_function_that_says_what_it_gives_and_what_it_raises() -> None:
    for name in ctllm_ray.__all__:
        function = getattr(ctllm_ray, name)
        assert inspect.isfunction(function), name
        assert "Raises" in (function.__doc__ or ""), name


def test_type_checkers_see_the_names_that_programs_get() -> None:
    source = Path(ctllm_ray.__file__)
    [branch] = [
        node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.If)
    ]
    homes = {
        alias.name: f"{node.module}"
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(homes) == ctllm_ray.__all__
    assert {name: getattr(ctllm_ray, name).__module__ for name in homes} == homes
    assert source.with_name("py.typed").is_file()


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prepare'; it has evaluate_model, "):
        _ = ctllm_ray.prepare


def test_the_commands_call_these_functions() -> None:
    verbs = "".join(
        file.read_text(encoding="utf-8") for file in (REPOSITORY / "ctllm_ray/verbs").glob("*.py")
    )
    own = {
        name for name, one in vars(api).items() if inspect.isfunction(one) and one.__module__ == api.__name__
    }
    without_command = {"read_shards", "serve_model"}  # `ctllm serve` also drains, after a signal
    for name in own - without_command:
        assert f"api.{name}(" in verbs, name


def test_the_how_to_page_lists_every_function_and_its_code_runs(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    for name in ctllm_ray.__all__:
        assert f"\n| `{name}` |" in text, name
    monkeypatch.chdir(prepared)
    [code] = [content for language, content in blocks(HOW_TO) if language == "python"]
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == [
        "215 of 328 pages kept",
        "lexicon.density.loan.min_distinct2",
        "9 poems",
    ]


def test_read_shards_gives_what_the_manifest_counts(tiny: Recipe) -> None:
    folder = tiny.folder(tiny.corpus)
    assert sum(table.num_rows for table in api.read_shards(folder)) == 215
    table = next(api.read_shards(tiny.folder("clean"), "rejected", ["id", "reject"]))
    assert table.column_names == ["id", "reject"]


def test_a_kind_of_shards_that_is_not_there_is_told_with_those_that_are(tiny: Recipe) -> None:
    with pytest.raises(NotFound, match="there are no 'train' shards") as caught:
        next(api.read_shards(tiny.folder("clean"), "train"))
    assert caught.value.remedy == "there are: kept, rejected"


def test_replay_counts_what_another_threshold_would_keep(tiny: Recipe) -> None:
    replay = api.replay_thresholds(tiny, ["document.digit_share.max=0.6"])
    assert replay.after["kept"] - replay.before["kept"] == 3


def test_lines_go_to_any_stream_though_tune_pickles_what_writes_them(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        writer = api.LineWriter(stream)
        pickle.loads(pickle.dumps(writer))("from the copy")
        writer("1 of 8")
    assert (tmp_path / "log").read_text() == "1 of 8\n"


def test_what_a_recipe_does_not_have_is_an_error_before_anything_starts(tiny: Recipe) -> None:
    cleans_only = tiny.model_copy(update={"train": None, "sweep": None, "evaluate": None})
    for call in (api.train_model, api.sweep_mixtures, api.evaluate_model):
        began = time.monotonic()
        with pytest.raises(RecipeError):
            call(cleans_only)
        assert time.monotonic() - began < 30
