"""Files as people have them: other spellings of answers, rows that are not right, exams of one's own, other
forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray.base.errors import InputError
from ctllm_ray.evaluate import harness, run, terminal
from ctllm_ray.evaluate.scoring import item_results
from ctllm_ray.evaluate.scoring.item_results import BAD, NO_LABEL, SCORED, SHOWN, TOO_LONG
from ctllm_ray.evaluate.tasks.c3 import c3
from ctllm_ray.evaluate.tasks.ceval import ceval
from ctllm_ray.evaluate.tasks.cmmlu import cmmlu
from ctllm_ray.evaluate.tasks.fewclue import fewclue
from ctllm_ray.evaluate.tasks.gsm8k import gsm8k
from ctllm_ray.evaluate.tasks.mgsm import mgsm
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.evaluate.conftest import exam_rows, lines
from tests.evaluate.subjects import Guessing, Oracle, asking
from tests.evaluate.test_run import quiet, recipe


def asked_rows(**last: Any) -> list[dict[str, Any]]:
    """An exam about anatomy of six questions, the last one changed."""
    rows = exam_rows(subjects=("anatomy",))
    rows[-1] |= last
    return rows


@pytest.mark.parametrize("answer", ["Ｂ", "B.", " b ", "(B)", "Ｂ。", "（Ｂ）"])
def test_a_letter_counts_in_each_spelling(answer: str, tmp_path: Path) -> None:
    [task] = cmmlu(path=lines(tmp_path / "a.jsonl", asked_rows(answer=answer)))
    assert (task.items[-1]["Answer"], task.left_out) == ("B", [])


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("D", None, "a row has no field 'D'"), ("answer", "E", "the answer is 'E', not A, B, C or D")],
)
def test_a_row_that_is_not_right_is_counted_and_the_others_are_scored(
    field: str, value: Any, why: str, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    tasks = {"exam": cmmlu(path=lines(tmp_path / "a.jsonl", asked_rows(**{field: value})))}
    found = evaluated(tasks, Guessing(), tokenizer, tmp_path)
    assert [item.status for item in found] == [SCORED] * 5 + [BAD]
    assert (found[-1].item, found[-1].said) == ("a.jsonl#10", why)


def evaluated(tasks: Any, subject: Any, tokenizer: SentencePiece, tmp_path: Path) -> list[item_results.Item]:
    with asking(subject, tmp_path) as asked:
        return harness.evaluate(tasks, harness.EngineLM(asked, tokenizer))


@pytest.mark.parametrize("exam", [cmmlu, ceval])
def test_an_exam_of_ones_own_is_asked_in_the_words_of_the_others(exam: Any, tmp_path: Path) -> None:
    rows = exam_rows(subjects=("公司制度", "arts" if exam is cmmlu else "law"))
    for row in rows:
        row["split"] = "val" if exam is ceval and row["split"] == "test" else row["split"]
    own, published = exam(path=lines(tmp_path / "a.jsonl", rows))
    assert "关于公司制度的单项选择题" in own.config["description"]
    assert own.config["doc_to_text"] == published.config["doc_to_text"]
    assert [(note.kind, note.example) for note in own.notes] == [("own_subject", "公司制度")]
    assert published.notes == []


def test_items_that_stand_twice_are_told_and_counted(tmp_path: Path) -> None:
    rows = [*asked_rows(), asked_rows()[-1]]
    [task] = cmmlu(path=lines(tmp_path / "a.jsonl", rows))
    assert len(task.items) == 7
    assert [(note.kind, note.count, note.example) for note in task.notes] == [
        ("copies", 1, "a.jsonl#11 repeats a.jsonl#10")
    ]  # fmt: skip


def test_an_item_among_its_examples_is_told(tmp_path: Path) -> None:
    rows = asked_rows()
    [task] = cmmlu(path=lines(tmp_path / "a.jsonl", [*rows, rows[0] | {"split": "test"}]))
    assert [(note.kind, note.count, note.example) for note in task.notes] == [
        ("among_examples", 1, "a.jsonl#11")
    ]


def test_sums_that_are_their_own_examples_are_left_out(
    sums: str, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    tasks = {"sums": gsm8k(path=sums, examples=sums, shots=3)}
    found = evaluated(tasks, Guessing(), tokenizer, tmp_path)
    assert [item.status for item in found] == [SCORED] * 5 + [SHOWN] * 3
    assert {item.item for item in found if item.status == SHOWN} == {f"gsm8k.jsonl#{n}" for n in range(3)}


CLUES = [
    {"_task": "ocnli", "_split": split, "sentence1": f"甲{n}", "sentence2": "乙", "label": label}
    for split in ("train_0", "dev_0", "test_public")
    for n, label in enumerate(("entailment", "neutral", "contradiction", "-"))
]  # fmt: skip


def test_an_item_without_a_label_is_counted_and_the_others_are_scored(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    found = evaluated(
        {"clue": fewclue(path=lines(tmp_path / "f.jsonl", CLUES))}, Guessing(), tokenizer, tmp_path
    )
    assert [item.status for item in found] == [SCORED] * 3 + [NO_LABEL]
    assert "label is '-'" in found[-1].said


def test_the_labelled_test_of_fewclue_is_read_and_a_split_that_is_not_there_is_refused(
    tmp_path: Path,
) -> None:
    path = lines(tmp_path / "f.jsonl", CLUES)
    [task] = fewclue(path=path, split="test_public", shots=2)
    assert [item["_id"] for item in task.items] == ["f.jsonl#8", "f.jsonl#9", "f.jsonl#10"]
    with pytest.raises(InputError, match="no rows of the split 'test_private'") as error:
        fewclue(path=path, split="test_private")
    assert error.value.remedy == "set split to an existing one: dev_0, test_public, train_0"
    tests = lines(tmp_path / "t.jsonl", [row for row in CLUES if row["_split"] == "test_public"])
    with pytest.raises(InputError, match="no rows of the split 'dev'"):
        fewclue(path=tests)


def test_a_test_whose_labels_are_not_public_is_refused_as_without_labels(tmp_path: Path) -> None:
    rows = [{"_task": "tnews", "_split": "test", "sentence": f"第{n}条"} for n in range(3)]
    with pytest.raises(InputError, match="no item can be used; the first one: the label is ''"):
        fewclue(path=lines(tmp_path / "f.jsonl", rows), split="test")


def test_c3_and_mgsm_are_read_as_they_are_published(tmp_path: Path) -> None:
    asked = [["男：甲。", "女：乙。"], [{"question": "谁？", "choice": ["甲", "乙"], "answer": "乙"}], "1-1"]
    for name, split in (("c3-d-test.json", "test"), ("c3-d-dev.json", "dev"), ("own.json", "test")):
        path = tmp_path / name
        path.write_text(json.dumps([asked], ensure_ascii=False), encoding="utf-8")
        [task] = c3(path=str(path), split=split)
        assert task.items[0]["text"] == "男：甲。\n女：乙。\n问题：谁？\n答案："
        assert (task.items[0]["_id"], task.items[0]["target"]) == (f"{name}#0.0", 1)
    with pytest.raises(InputError, match="no rows of the split 'test'"):
        c3(path=str(tmp_path / "c3-d-dev.json"))
    tsv = tmp_path / "mgsm_zh.tsv"
    tsv.write_text("一加一？\t2\r\n二加\u2028二？\t1,004\n", encoding="utf-8")
    [sums] = mgsm(path=str(tsv))
    assert [(item["question"], item["answer_number"]) for item in sums.items] == [
        ("一加一？", "2"), ("二加\u2028二？", "1004"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "use"),
    [("a.tsv", "没有数\n", mgsm), ("a.json", '[[["甲"], []]]', c3), ("a.json", "[[", c3)],
)
def test_a_published_form_that_is_not_right_is_an_error_that_names_the_file(
    name: str, content: str, use: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read") as error:
        use(path=str(tmp_path / name))
    assert name in str(error.value)


def test_the_answer_of_an_item_is_what_was_scored(tmp_path: Path, tokenizer: SentencePiece) -> None:
    rows = [
        {"context": [f"男：第{n}天。"], "split": "c3-d-test", "questions": [{
            "question": f"{n}？", "choice": ["水", "孩子们笑着跑过桥", "花开得很好"],
            "answer": ("水", "花开得很好")[n % 2]}]}
        for n in range(40)
    ]  # fmt: skip
    tasks = {"c3": c3(path=lines(tmp_path / "c3.jsonl", rows))}
    found = evaluated(tasks, Guessing(), tokenizer, tmp_path)
    assert {item.score for item in found} == {0.0, 1.0}
    assert all((item.answer == item.target) == (item.score == 1.0) for item in found)
    raw = [str(item.logprobs.index(max(item.logprobs))) for item in found]
    assert raw != [item.answer for item in found]  # lengths matter here


def test_sums_are_scored_as_numbers_and_lm_evals_metric_stands_beside(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    said = {"甲？": " 460.0", "乙？": " 4.60", "丙？": " 460", "丁？": " 四百六十"}
    path = lines(tmp_path / "m.jsonl", [{"question": question, "answer": "460"} for question in said])
    found = evaluated({"mgsm": mgsm(path=path)}, Oracle(tokenizer, said), tokenizer, tmp_path)
    assert [item.score for item in found] == [1, 0, 1, 1]
    assert [item.lm_eval for item in found] == [0, 1, 1, 0]


def test_a_benchmark_of_which_nothing_fits_the_context_is_an_error_before_anything_is_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctllm_ray.inference.torch_engine import TorchEngine

    asked = recipe(folder, tmp_path)
    long = lines(tmp_path / "long.jsonl", [row | {"question": "长" * 600} for row in asked_rows()])
    monkeypatch.setattr(TorchEngine, "logprobs", None)
    given = [task.model_dump() for task in asked.evaluate.tasks]  # type: ignore[union-attr]
    tasks = [*given, {"use": "cmmlu", "name": "long", "path": long, "shots": 0}]
    with pytest.raises(InputError, match="all items are too long for the context of 512 tokens") as error:
        run.evaluate(recipe(folder, tmp_path, tasks=tasks), quiet)
    assert error.value.where == "evaluate.tasks.long"
    monkeypatch.undo()
    tasks[-1]["path"] = lines(
        tmp_path / "some.jsonl", [*asked_rows()[:-1], asked_rows()[-1] | {"question": "长" * 600}]
    )
    run.evaluate(
        recipe(folder, tmp_path, tasks=tasks), quiet
    )  # the folder was not begun by the one that was refused
    statuses = [item.status for item in item_results.read_items(recipe(folder, tmp_path).folder("evaluate"))]
    assert (statuses.count(SCORED), statuses.count(TOO_LONG)) == (12 + 4 + 5, 1)


@pytest.fixture
def odd(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Results over rows that are not right, copies, and a subject of one's own."""
    rows = [*exam_rows(subjects=("公司制度",)), exam_rows(subjects=("公司制度",))[-1], asked_rows(D=None)[-1]]
    rows[-1]["subject"] = "公司制度"
    tasks = [{"use": "cmmlu", "path": lines(tmp_path / "own.jsonl", rows), "shots": 0}]
    asked = recipe(folder, tmp_path, tasks=tasks)
    return run.evaluate(asked, quiet) | {"folder": asked.folder("evaluate")}


def test_results_tell_what_is_odd_about_the_items(odd: dict[str, Any]) -> None:
    whole = odd["scores"][0]
    assert (whole["items"], whole["scored"], whole["bad"]) == (8, 7, 1)
    assert {note["kind"]: note["count"] for note in odd["notes"]} == {"own_subject": 1, "copies": 1}
    told = "\n".join(terminal.format_scores(odd))
    assert "1 with invalid rows" in told
    assert "repeat earlier ones" in told
    page = (Path(odd["folder"]) / "report.html").read_text("utf-8")
    assert "1 items repeat earlier ones" in page
    assert "1 题的数据有误" in page


def test_real_public_tests_are_asked_where_they_are(shared_data: Path) -> None:
    path = str(shared_data / "eval/fewclue_train_dev.jsonl.zst")
    with pytest.raises(InputError, match="no rows of the split 'test_public'"):
        fewclue(path=path, split="test_public")
