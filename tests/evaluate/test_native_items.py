"""Items of lm-eval's own tasks as files: whole, with their fields, and read by `decontaminate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ctllm_ray import cli
from ctllm_ray.base import recipe as recipes
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.decontamination import seen_items
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import write_crawl
from tests.evaluate.conftest import lines

ROWS = [
    {"question": "黄河的源头在哪一座山的北麓？", "choices": ["巴颜喀拉山", "祁连山"], "answer": 0},
    {"question": "唐代的长安城东西两市各有多少个行？", "choices": ["二百二十", "一百"], "answer": 0},
]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of lm-eval in a file, whose data is a file, too."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data = lines(tmp_path / "data.jsonl", ROWS)
    config = {
        "task": "rivers",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}, "cache_dir": str(tmp_path / "hub")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
    }
    path = tmp_path / "rivers.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return str(path)


def test_items_of_a_task_of_lm_eval_are_found_in_the_corpus(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "eval" / "rivers.jsonl"
    assert cli.run(["items", task, task, "--to", str(written)]) == 0  # one task by two names is written once
    assert capsys.readouterr().out == f"rivers  2 items\n{written}\n"
    assert [json.loads(line) for line in written.read_text().splitlines()] == ROWS

    pages = [f"地理问答：{ROWS[0]['question']}{'、'.join(ROWS[0]['choices'])}。", "别的一页，说别的事。"]
    crawl = write_crawl(tmp_path / "crawl", [pages])
    sets = [{"name": "rivers", "path": str(written), "fields": "all"}]
    bounds = {"ngram_chars": 8, "max_items": 4, "min_overlap": 0.5, "action": "cut"}
    recipe = recipes.parse_recipe(
        {"name": "tiny", "version": "1", "seed": 1, "root": str(tmp_path / "out"), "stages": []}
        | {"data": {"inputs": [{"use": "jsonl", "path": f"{crawl}/*.jsonl"}], "max_error_share": 0}}
        | {"passes": [{"use": "decontaminate", "sets": sets} | bounds]}
    )
    pipeline.prepare(recipe, run_here)
    assert [
        row["overlap"] for row in seen_items.read_seen_items(recipe.folder("decontaminate")).to_pylist()
    ] == [
        1.0,
        0.0,
    ]


def test_a_task_that_there_is_not_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["items", "no_such_task", "--to", str(tmp_path / "x.jsonl")]) == 3
    told = capsys.readouterr().err
    assert "lm-eval cannot load this task" in told
    assert "where:  no_such_task" in told
    assert not (tmp_path / "x.jsonl").exists()
    assert cli.run(["items", "cmmlu", "--to", str(tmp_path / "x.jsonl.zst")]) == 3
    assert "a JSON lines file" in capsys.readouterr().err
