"""`ctllm evaluate` and `ctllm compare`: results, going on, other evaluations in the way, the served model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctllm_ray import cli
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.errors import EngineFailed, InputError, NotFound, RecipeError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.benchmark_files import ID, table
from ctllm_ray.corpus import pipeline
from ctllm_ray.evaluate import plan, run, terminal
from ctllm_ray.evaluate.scoring import compare, contamination, item_results
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.serving.api.model_card import ModelCard
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.corpus.conftest import run_here
from tests.evaluate.conftest import exam_rows, lines, seeing
from tests.serving.apps import running, served


def quiet(kind: str, done: int, total: int) -> None:
    """Nothing."""


def recipe(folder: Path, tmp_path: Path, root: str = "out", **evaluate: Any) -> Recipe:
    return recipes.parse_recipe(plain(folder, tmp_path, root, **evaluate))


def plain(folder: Path, tmp_path: Path, root: str = "out", **evaluate: Any) -> dict[str, Any]:
    exam, sums = tmp_path / "exam.jsonl", tmp_path / "sums.jsonl"
    if not exam.exists():
        lines(exam, exam_rows())
        lines(sums, [{"question": f"{n}加一？", "answer": f"#### {n + 1}"} for n in range(4)])
    tasks = [
        {"use": "cmmlu", "path": str(exam), "shots": 2},
        {"use": "gsm8k", "name": "sums", "path": str(sums), "shots": 0, "answer_tokens": 8},
    ]
    data = {"inputs": [{"use": "jsonl", "path": "nowhere/*"}], "max_error_share": 0}
    part = {"model": str(folder), "tasks": tasks, "resamples": 50} | evaluate
    start = {
        "name": "tiny",
        "version": "1",
        "seed": 1,
        "root": str(tmp_path / root),
        "data": data,
        "stages": [],
    }
    return start | {"serve": {"slots": 4, "threads": 1}, "evaluate": part}


def test_results_stand_in_a_folder_of_the_recipe_and_are_not_made_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(folder, tmp_path)
    results = run.evaluate(asked, quiet)
    assert set(storage.list_names(asked.folder("evaluate"))) == {
        "begun.json", "items.parquet", "report.html", "results.json",
    }  # fmt: skip
    assert [(s["benchmark"], s["part"], s["items"]) for s in results["scores"]] == [
        ("cmmlu", "", 12), ("cmmlu", "anatomy", 6), ("cmmlu", "arts", 6), ("sums", "", 4),
    ]  # fmt: skip
    assert results["decisions"]["files"].keys() == {"exam.jsonl", "sums.jsonl"}
    assert len(item_results.read_items(asked.folder("evaluate"))) == 16
    monkeypatch.setattr(TorchEngine, "logprobs", None)
    assert run.evaluate(asked, quiet) == results


def test_an_evaluation_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.evaluate(recipe(folder, tmp_path, "whole"), quiet)
    real, asked = TorchEngine.logprobs, []

    async def dying(self: TorchEngine, *given: Any) -> Any:
        asked.append(given[0])
        if len(asked) == 12:  # at most 8 are under way, so 4 were answered
            raise EngineFailed("killed")
        return await real(self, *given)

    monkeypatch.setattr(TorchEngine, "logprobs", dying)
    with pytest.raises(EngineFailed):
        run.evaluate(recipe(folder, tmp_path), quiet)
    first = [tuple(ids) for ids in asked]
    assert run.evaluate(recipe(folder, tmp_path), quiet) == whole
    assert len(set(map(tuple, asked))) == 12
    assert len(asked) - len(first) <= 8
    told = [item.score for item in item_results.read_items(recipe(folder, tmp_path).folder("evaluate"))]
    assert told == [
        item.score for item in item_results.read_items(recipe(folder, tmp_path, "whole").folder("evaluate"))
    ]


def test_items_that_the_corpus_had_seen_are_marked_and_the_score_is_told_without_them(
    folder: Path, tmp_path: Path
) -> None:
    asked_of = recipes.parse_recipe(plain(folder, tmp_path) | seeing(tmp_path, str(tmp_path / "exam.jsonl")))
    assert (
        contamination.read_contamination(contamination.folder_of(asked_of), {}) == contamination.NOTHING
    )  # the pass has not been made
    pipeline.prepare(asked_of, run_here)
    results = run.evaluate(asked_of, quiet)
    exam, sums = (s for s in results["scores"] if not s["part"])
    found = [
        item for item in item_results.read_items(asked_of.folder("evaluate")) if item.benchmark == "cmmlu"
    ]
    held = [item for item in found if item.seen_overlap == 1]
    assert {item.item for item in held} == {f"exam.jsonl#{n}" for n in (5, 6, 7)}
    assert (exam["seen"], sums["seen"], sums["unseen_value"]) == (3, None, None)
    others = [item.score or 0 for item in found if item not in held]
    assert exam["unseen_value"] == pytest.approx(sum(others) / len(others))
    assert len(others) == 9
    assert "3 seen in the corpus" in next(terminal.format_scores(results))
    assert "语料见过 3 题" in (Path(asked_of.folder("evaluate")) / "report.html").read_text()
    assert set(results["decisions"]["seen"]) == {"sha256", "min_overlap"}


def test_another_evaluation_in_the_folder_is_named_by_what_differs(folder: Path, tmp_path: Path) -> None:
    run.evaluate(recipe(folder, tmp_path), quiet)
    with pytest.raises(VersionConflict, match="seed: 0 -> 3"):
        run.evaluate(recipe(folder, tmp_path, seed=3), quiet)
    run.evaluate(recipe(folder, tmp_path, seed=3, run="again"), quiet)
    rows = exam_rows()
    rows[-1]["question"] = "换了一题？"
    lines(tmp_path / "exam.jsonl", rows)
    with pytest.raises(VersionConflict, match=r"files\.exam\.jsonl: "):
        run.evaluate(recipe(folder, tmp_path), quiet)


def test_bits_per_byte_are_those_of_validation(
    folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    import torch

    from ctllm_ray.model import llama
    from ctllm_ray.train.data import corpora
    from ctllm_ray.train.validation import validate

    section = tmp_path / "tokens"
    texts = {"text": ["春天到了花开得很好我们去山里" * n for n in (1, 2, 3)], "web": ["水也清风也轻。"]}
    write_held_out(section, tokenizer, texts)
    asked = recipe(folder, tmp_path, tasks=[], bits={"corpora": [str(section)]})
    results = run.evaluate(asked, quiet)
    sections = corpora.read_sections((str(section),))
    documents = validate.documents(corpora.held_out(sections), 200_000)
    with torch.no_grad():
        wanted = validate.bits(llama.load(str(folder)), documents, sequence_tokens=128)
    told = {score["part"]: score["value"] for score in results["scores"] if score["part"]}
    assert told == pytest.approx({group: bits["bits_per_byte"] for group, bits in wanted.items()}, rel=1e-5)
    assert {item.item for item in item_results.read_items(asked.folder("evaluate"))} == {
        doc.doc_id for docs in documents.values() for doc in docs
    }


def write_held_out(section: Path, tokenizer: SentencePiece, texts: dict[str, list[str]]) -> None:
    """A token section with these held-out documents."""
    facts = {"tokenizer": tokenizer.sha256, "vocab_size": "900", "bos": "1", "eos": "2", "pad": "3"}
    kind, shards = tokens.id_type(900), []
    for group, of_group in texts.items():
        ids = [np.array([1, *found, 2], np.int64) for found in tokenizer.encode(of_group)]
        names = [f"{group}/{n}" for n in range(len(ids))]
        sizes = [
            np.array(list(map(len, each)), np.int32) for each in ([t.encode() for t in of_group], of_group)
        ]
        with tokens.TokenShardWriter(str(section), tokens.HELD_OUT, group, 0, kind, ()) as writer:
            writer.write(tokens.table(names, ids, *sizes, {}, kind))
        shards += writer.shards
    manifest.write_manifest(
        str(section), Manifest("tokens", "test", "1", "0" * 64, {}, [], {"in": 4, "kept": 4}, shards, facts)
    )


@contextmanager
def api(engine: TorchEngine, tokenizer: SentencePiece, tmp_path: Path, **changes: Any) -> Iterator[str]:
    with running(served(engine, tokenizer, tmp_path, **changes)) as url:
        yield f"{url}/v1"


def test_the_served_model_has_the_scores_of_the_one_in_process(
    folder: Path, tmp_path: Path, engine: TorchEngine, tokenizer: SentencePiece
) -> None:
    here = recipe(folder, tmp_path)
    there = recipe(folder, tmp_path, run="served")
    mine = run.evaluate(here, quiet)
    with api(engine, tokenizer, tmp_path) as url:
        theirs = run.evaluate(there, quiet, url=url)
    assert theirs["scores"] == mine["scores"]
    ours, others = (item_results.read_items(each.folder("evaluate")) for each in (here, there))
    for one, two in zip(ours, others, strict=True):
        assert (one.item, one.score, one.answer, one.prompt_hash) == (
            two.item,
            two.score,
            two.answer,
            two.prompt_hash,
        )
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
    assert all(
        found.difference.p == 1
        for found in compare.compare(here.folder("evaluate"), there.folder("evaluate"), 50)
    )


def test_a_server_with_another_tokenizer_is_refused(
    folder: Path, tmp_path: Path, engine: TorchEngine
) -> None:
    from ctllm_ray.tokenizer.train import train
    from tests.tokenizer.conftest import document

    other = SentencePiece(train([document(seed) for seed in range(300)], 700))
    with api(engine, other, tmp_path) as url, pytest.raises(InputError, match="uses another tokenizer"):
        run.evaluate(recipe(folder, tmp_path), quiet, url=url)


def test_a_key_is_read_from_the_environment(
    folder: Path,
    tmp_path: Path,
    engine: TorchEngine,
    tokenizer: SentencePiece,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ctllm_ray.serving.api import keys

    key = keys.create_key(str(tmp_path / "keys.json"), "team")
    monkeypatch.setenv("MODEL_KEY", key)
    with api(engine, tokenizer, tmp_path) as url:
        with pytest.raises(InputError, match="refused the request with 401"):
            run.evaluate(recipe(folder, tmp_path), quiet, url=url)
        assert run.evaluate(recipe(folder, tmp_path), quiet, url=url, key_env="MODEL_KEY")["scores"]


def test_a_context_that_the_api_does_not_tell_is_an_error(
    folder: Path, tmp_path: Path, engine: TorchEngine, tokenizer: SentencePiece
) -> None:
    with (
        api(engine, tokenizer, tmp_path, card=ModelCard("tiny-1", 0)) as url,
        pytest.raises(InputError, match="does not report the model's context"),
    ):
        run.evaluate(recipe(folder, tmp_path), quiet, url=url)


def test_evaluation_without_lm_eval_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed") as error:
        run.evaluate(recipe(folder, tmp_path), quiet)
    assert "ctllm-ray[evaluate]" in error.value.remedy


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"tasks": [{"use": "cmlu", "path": "x"}]}, "did you mean 'cmmlu'"),
        ({"tasks": [{"use": "cmmlu", "path": "x", "shot": 5}]}, "unknown option 'shot'"),
        ({"tasks": [{"use": "cmmlu", "path": "x"}] * 2}, "two tasks are named 'cmmlu'"),
        ({"task": []}, "unknown key 'evaluate.task'"),
        ({"tasks": [{"use": "cmmlu", "path": "x", "shots": -1}]}, "shots"),
    ],
)
def test_a_part_that_is_not_right_is_told_before_anything_is_read(
    folder: Path, tmp_path: Path, part: dict, said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(folder, tmp_path, **part)
    assert said in str(error.value)


def test_a_recipe_without_tasks_evaluates_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no evaluation"):
        run.evaluate(recipe(folder, tmp_path, tasks=[]), quiet)


def test_tasks_are_chosen_by_name_and_limited(folder: Path, tmp_path: Path) -> None:
    part = recipe(folder, tmp_path, bits={}).evaluate
    assert part is not None
    assert plan.names(part) == ["cmmlu", "sums", "bits_per_byte"]
    narrowed = plan.select_benchmarks(part, ["sums"], 2)
    assert plan.names(narrowed) == ["sums"]
    assert narrowed.tasks[0].model_dump()["limit"] == 2
    with pytest.raises(InputError, match="'mmlu'"):
        plan.select_benchmarks(part, ["mmlu"], 0)


def test_the_commands_print_scores_and_differences(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(plain(folder, tmp_path)), encoding="utf-8")
    assert cli.run(["evaluate", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("cmmlu")
    assert "12 of 12 items, chance 25.0 %" in out[0]
    assert out[-1].endswith("evaluate/report.html")
    assert cli.run(["evaluate", str(path), "evaluate.run=b", "evaluate.tasks.cmmlu.shots=0"]) == 0
    capsys.readouterr()
    folders = [str(tmp_path / "out/tiny/1" / name) for name in ("evaluate", "evaluate-b")]
    assert cli.run(["compare", *folders]) == 0
    [first, _] = capsys.readouterr().out.splitlines()
    assert "12 items in both, 12 with other prompts" in first
    assert "(McNemar)" in first
    assert cli.run(["compare", folders[0], str(tmp_path)]) == NotFound.exit_code


def test_ids_lead_back_to_the_row_of_the_file(folder: Path, tmp_path: Path) -> None:
    asked = recipe(folder, tmp_path)
    run.evaluate(asked, quiet)
    read = {row[ID]: row for row in table(str(tmp_path / "exam.jsonl")).rows}
    found = [item for item in item_results.read_items(asked.folder("evaluate")) if item.benchmark == "cmmlu"]
    assert all("ABCD"[int(item.target)] == read[item.item]["answer"] for item in found)


def test_on_real_items_the_served_model_has_the_scores_of_the_one_in_process(
    folder: Path, tmp_path: Path, engine: TorchEngine, tokenizer: SentencePiece, shared_data: Path
) -> None:
    data = shared_data / "eval"
    tasks = [
        {"use": "cmmlu", "path": str(data / "cmmlu.jsonl.zst"), "shots": 1, "limit": 1},
        {"use": "c3", "path": str(data / "c3_dialogue_dev_test.jsonl.zst"), "limit": 12},
        {
            "use": "fewclue",
            "path": str(data / "fewclue_train_dev.jsonl.zst"),
            "parts": ["tnews", "chid"],
            "limit": 4,
        },
        {
            "use": "gsm8k",
            "path": str(data / "gsm8k_train.jsonl.zst"),
            "shots": 0,
            "limit": 3,
            "answer_tokens": 16,
        },
        {"use": "mgsm", "path": str(data / "mgsm_zh.jsonl.zst"), "limit": 3, "answer_tokens": 16},
    ]
    here, there = (recipe(folder, tmp_path, run=name, tasks=tasks) for name in ("here", "there"))
    mine = run.evaluate(here, quiet)
    with api(engine, tokenizer, tmp_path) as url:
        theirs = run.evaluate(there, quiet, url=url)
    assert theirs["scores"] == mine["scores"]
    assert sum(score["items"] for score in mine["scores"] if not score["part"]) == 43 + 12 + 8 + 3 + 3
    ours, others = (item_results.read_items(each.folder("evaluate")) for each in (here, there))
    assert [(item.item, item.status, item.answer) for item in ours] == [
        (item.item, item.status, item.answer) for item in others
    ]
