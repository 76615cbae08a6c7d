"""Tasks out of local files in their native forms, prompts as lm-eval publishes them, and files that are not
right."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from ctllm_ray import benchmark_files
from ctllm_ray.base import resolve
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.benchmark_files import ID
from ctllm_ray.evaluate.tasks.c3 import c3
from ctllm_ray.evaluate.tasks.ceval import ceval
from ctllm_ray.evaluate.tasks.cmmlu import cmmlu
from ctllm_ray.evaluate.tasks.fewclue import fewclue
from ctllm_ray.evaluate.tasks.gsm8k import gsm8k
from ctllm_ray.evaluate.tasks.mgsm import mgsm
from tests.evaluate.conftest import exam_rows, lines

CLUES = [
    {"_task": "eprstmt", "_split": split, "sentence": f"第{n}条", "label": ("Negative", "Positive")[n % 2]}
    for split in ("train_few_all", "dev_few_all") for n in range(4)
] + [
    {"_task": "chid", "_split": "dev_few_all", "content": "他#idiom#，走了。", "candidates": ["甲", "乙"], "answer": 1},
    {"_task": "iflytek", "_split": "dev_few_all", "sentence": "看书", "label": 3, "label_des": "阅读"},
    {"_task": "iflytek", "_split": "train_few_all", "sentence": "听歌", "label": 9, "label_des": "音乐"},
]  # fmt: skip


def test_an_exam_is_a_task_for_each_subject_with_the_dev_split_as_examples(exam: str) -> None:
    anatomy, arts = cmmlu(path=exam, shots=3)
    assert (anatomy.name, arts.name) == ("anatomy", "arts")
    assert "解剖学" in anatomy.config["description"]
    assert [shot["Question"] for shot in anatomy.shots] == [f"anatomy的dev第{n}题是什么？" for n in range(3)]
    assert [item["Answer"] for item in anatomy.items] == ["A", "B", "C", "D", "A", "B"]
    assert [item[ID] for item in anatomy.items] == [f"cmmlu.jsonl#{n}" for n in range(5, 11)]
    assert anatomy.chance == 0.25


def test_prompts_are_those_that_lm_eval_publishes(exam: str) -> None:
    [task] = cmmlu(path=exam, subjects=("arts",))
    assert task.config["doc_to_text"].startswith("{{Question.strip()}}\nA. {{A}}")
    assert not {"dataset_path", "dataset_name", "fewshot_split", "include"} & task.config.keys()


@pytest.mark.parametrize("use", ["cmmlu", "ceval"])
def test_the_published_folder_of_csv_files_is_read_too(use: str, tmp_path: Path) -> None:
    split, suffix = ("test", "") if use == "cmmlu" else ("val", "_{}")
    names = {"question": "Question", "answer": "Answer"} if use == "cmmlu" else {}
    for part, n in (("dev", 5), (split, 3)):
        file = (
            tmp_path / part / f"law{suffix.format(part)}.csv"
            if use == "ceval"
            else tmp_path / part / "arts.csv"
        )
        file.parent.mkdir()
        rows = [
            {k: v for k, v in r.items() if k not in ("subject", "split")} for r in exam_rows(n, ("x",), 0)
        ]
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, [names.get(key, key) for key in rows[0]])
            writer.writeheader()
            writer.writerows([{names.get(key, key): value for key, value in row.items()} for row in rows])
    [task] = (cmmlu if use == "cmmlu" else ceval)(path=str(tmp_path))
    assert (task.name, len(task.items), len(task.shots), len(task.files)) == (
        "arts" if use == "cmmlu" else "law", 3, 5, 2
    )  # fmt: skip


def test_a_limit_takes_the_same_items_whatever_else_is_there(tmp_path: Path) -> None:
    whole = lines(tmp_path / "a.jsonl", exam_rows(50, ("arts",)))
    some, more = ([item[ID] for item in cmmlu(path=whole, limit=n)[0].items] for n in (10, 20))
    assert len(some) == 10
    assert set(some) < set(more)
    assert more == sorted(more, key=lambda id_: int(id_.partition("#")[2]))


def test_choices_stand_after_the_text_and_the_right_one_is_known(tmp_path: Path) -> None:
    path = lines(tmp_path / "fewclue.jsonl", CLUES)
    eprstmt, chid, iflytek = fewclue(path=path, shots=0)
    assert [item["target"] for item in eprstmt.items] == [0, 1, 0, 1]
    assert eprstmt.items[0]["text"] == "评论：第0条\n情感："
    assert eprstmt.items[0]["choices"] == ["负面", "正面"]
    assert (chid.items[0]["text"], chid.items[0]["choices"]) == ("他", ["甲，走了。", "乙，走了。"])
    assert iflytek.items[0]["choices"] == ["阅读", "音乐"]
    assert [task.chance for task in (eprstmt, chid, iflytek)] == [0.5, 0.5, 0.5]


def test_examples_of_fewclue_are_of_its_train_split_and_of_c3_of_its_dev_split(tmp_path: Path) -> None:
    [clue] = fewclue(path=lines(tmp_path / "f.jsonl", CLUES), parts=("eprstmt",), shots=2)
    assert all(int(shot[ID].partition("#")[2]) < 4 for shot in clue.shots)
    dialogues = [
        {"context": ["男：好。", "女：好。"], "split": split, "questions": [
            {"question": f"{n}？", "choice": ["好", "不好", "很好"], "answer": "好"} for n in range(2)]}
        for split in ("c3-d-dev", "c3-d-test")
    ]  # fmt: skip
    [task] = c3(path=lines(tmp_path / "c3.jsonl", dialogues), shots=1)
    assert [item[ID] for item in task.items] == ["c3.jsonl#1.0", "c3.jsonl#1.1"]
    assert [shot[ID] for shot in task.shots] == ["c3.jsonl#0.0"]
    assert task.items[0]["text"] == "男：好。\n女：好。\n问题：0？\n答案："
    assert task.measure == "acc_norm"


def test_examples_of_sums_are_the_first_rows_and_are_not_asked(sums: str, tmp_path: Path) -> None:
    [task] = gsm8k(path=sums, shots=3)
    assert [shot[ID][-1] for shot in task.shots] == ["0", "1", "2"]
    assert [item[ID][-1] for item in task.items] == ["3", "4", "5", "6", "7"]
    other = lines(tmp_path / "train.jsonl", [{"question": "一加一？", "answer": "#### 2"}])
    [task] = gsm8k(path=sums, examples=other, shots=1, answer_tokens=9)
    assert (len(task.items), task.shots[0]["question"], len(task.files)) == (8, "一加一？", 2)
    assert task.config["generation_kwargs"]["max_gen_toks"] == 9
    [chinese] = mgsm(path=lines(tmp_path / "mgsm.jsonl", [{"question": "二加二？", "answer": "1,004"}]))
    assert chinese.items[0]["answer_number"] == "1004"


def test_a_line_separator_in_a_text_does_not_end_its_line(tmp_path: Path) -> None:
    row = {"question": "一\u2028加\x85一？", "answer": "#### 2"}
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert gsm8k(path=str(path), shots=0)[0].items[0]["question"] == row["question"]


def test_compressed_files_are_read(tmp_path: Path, sums: str) -> None:
    import zstandard

    content = Path(sums).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(content))
    plain = benchmark_files.table(sums).rows
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        found = benchmark_files.table(str(tmp_path / name))
        assert [{**row, ID: ""} for row in found.rows] == [{**row, ID: ""} for row in plain]


@pytest.mark.parametrize("use", resolve.names(resolve.TASKS))
def test_a_missing_file_is_an_error_that_names_it(use: str, tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError) as error:
        resolve.resolve(resolve.TASKS, use)(path=path)
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "一', "cannot be read"),
        ("[1]\n", "not a JSON object"),
        (
            '{"subject": "arts", "split": "test", "question": "一？", "A": "1", "B": "2", "C": "3", "answer": "A"}',
            "'D'",
        ),
        (
            '{"subject": "arts", "split": "test", "question": "一", "A": "", "B": "", "C": "", "D": "", "answer": "E"}',
            "'E'",
        ),
        ('{"subject": "arts", "split": "dev"}', "split 'test'"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_file_that_is_not_right_is_an_error_that_names_file_and_row(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=said) as error:
        cmmlu(path=str(path), shots=0)
    assert "bad.jsonl" in str(error.value)


def test_too_few_examples_and_unknown_parts_are_errors(exam: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="6 examples are needed, but there are 5"):
        cmmlu(path=exam, shots=6)
    with pytest.raises(InputError, match="'law'"):
        cmmlu(path=exam, subjects=("law",))
    with pytest.raises(RecipeError, match="tnewss"):
        fewclue(path=exam, parts=("tnewss",))


def test_real_files_are_read(shared_data: Path) -> None:
    folder = shared_data / "eval"
    exams = cmmlu(path=str(folder / "cmmlu.jsonl.zst"))
    assert (len(exams), sum(len(task.items) for task in exams)) == (43, 7886 - 43 * 5)
    clues = fewclue(path=str(folder / "fewclue_train_dev.jsonl.zst"), shots=4)
    assert [task.name for task in clues][:3] == ["tnews", "eprstmt", "bustm"]
    assert len(clues) == 9
    assert sum(len(task.items) for task in clues) == 5535
    assert len(c3(path=str(folder / "c3_dialogue_dev_test.jsonl.zst"))[0].items) == 1371
    assert len(gsm8k(path=str(folder / "gsm8k_train.jsonl.zst"))[0].items) == 7473 - 5
    assert len(mgsm(path=str(folder / "mgsm_zh.jsonl.zst"))[0].items) == 159
