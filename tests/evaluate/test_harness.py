"""lm-eval's numbers: those of its own `hf` backend on the same model and items; chance for who guesses, 1 for
who knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from ctllm_ray.evaluate import harness
from ctllm_ray.evaluate.models.model_under_test import EngineModel, ModelUnderTest
from ctllm_ray.evaluate.scoring.item_results import SCORED, TOO_LONG
from ctllm_ray.evaluate.task import Task
from ctllm_ray.evaluate.tasks.c3 import c3
from ctllm_ray.evaluate.tasks.cmmlu import cmmlu
from ctllm_ray.evaluate.tasks.gsm8k import gsm8k
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece
from tests.evaluate.conftest import exam_rows, lines
from tests.evaluate.subjects import Guessing, Oracle, asking

PAIRS = [
    ("春天到了", "花开得很好"), ("春天到了", "水也清"), ("the model trains on ", "shards"),
    ("", "我们去山里"),
    ("孩子们笑着跑过桥，" * 20, "他说明年再来"), ("答案：", " A"), ("答案：", " B"),
]  # fmt: skip


@pytest.fixture(scope="module")
def hf(folder: Path) -> HFLM:
    return HFLM(pretrained=str(folder), batch_size=3, device="cpu", dtype="float32")


@pytest.fixture
def lm(engine: TorchEngine, tokenizer: SentencePiece, tmp_path: Path) -> Iterator[harness.EngineLM]:
    subject = EngineModel(engine, tokenizer, frozenset({tokenizer.eos_id}))
    with asking(subject, tmp_path) as asked:
        yield harness.EngineLM(asked, tokenizer)


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, given, at, ("task", at, 1)) for at, given in enumerate(arguments)]


def test_log_probabilities_are_those_of_the_hf_backend(hf: HFLM, lm: harness.EngineLM) -> None:
    ours, theirs = (
        each.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True) for each in (lm, hf)
    )
    for (logprob, greedy), (wanted, wanted_greedy) in zip(ours, theirs, strict=True):
        assert logprob == pytest.approx(wanted, abs=2e-4)
        assert greedy == wanted_greedy


def test_exactly_one_of_all_next_tokens_is_greedy_and_it_is_that_of_the_hf_backend(
    hf: HFLM, lm: harness.EngineLM
) -> None:
    asked = [(("", ""), [1, 300, 301], [id_]) for id_ in range(900)]
    ours, theirs = (each._loglikelihood_tokens(asked, disable_tqdm=True) for each in (lm, hf))
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert sum(greedy for _, greedy in ours) == 1
    assert [logprob for logprob, _ in ours] == pytest.approx([logprob for logprob, _ in theirs], abs=2e-4)


def test_rolling_log_probabilities_are_those_of_the_hf_backend(folder: Path, lm: harness.EngineLM) -> None:
    plain = HFLM(pretrained=str(folder), device="cpu", dtype="float32", add_bos_token=False, max_length=510)
    texts = [("春天到了花开得很好。",), ("我们去山里走了一天，水也清，风也轻。" * 60,)]
    ours, theirs = (
        each.loglikelihood_rolling(instances("loglikelihood_rolling", texts), disable_tqdm=True)
        for each in (lm, plain)
    )
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_what_is_written_is_what_the_hf_backend_writes(
    hf: HFLM, engine: TorchEngine, tokenizer: SentencePiece, tmp_path: Path
) -> None:
    decoding = HuggingFace(
        tokenizer.files()
    )  # the two kinds differ in what they make of bytes that are no UTF-8
    prompts = ["春天到了", "the model trains on", "12345年", "孩子们"]
    kwargs = {"until": ["\n\n", "春"], "max_gen_toks": 24, "do_sample": False}
    asked = [instances("generate_until", [(prompt, dict(kwargs)) for prompt in prompts]) for _ in range(2)]
    with asking(EngineModel(engine, decoding, frozenset({decoding.eos_id})), tmp_path) as subject:
        ours = harness.EngineLM(subject, decoding).generate_until(asked[0])
    assert ours == hf.generate_until(asked[1], disable_tqdm=True)
    assert any(ours)


def test_a_whole_evaluation_has_the_scores_of_the_hf_backend(
    hf: HFLM, lm: harness.EngineLM, exam: str, sums: str
) -> None:
    tasks = {"cmmlu": cmmlu(path=exam, shots=2), "gsm8k": gsm8k(path=sums, shots=2, answer_tokens=16)}
    ours = harness.evaluate(tasks, lm)
    built = {
        f"{name}/{t.name}": harness.lm_eval_task_of(f"{name}/{t.name}", t)
        for name, ts in tasks.items()
        for t in ts
    }
    theirs = evaluator.evaluate(hf, {"tasks": built, "groups": {}}, bootstrap_iters=0)["samples"]
    for item in ours:
        wanted = next(
            sample for sample in theirs[f"{item.benchmark}/{item.part}"]
            if sample["doc"]["_id"] == item.item and sample["filter"] in ("none", "flexible-extract")
        )  # fmt: skip
        theirs_says = wanted["acc" if item.benchmark == "cmmlu" else "exact_match"]
        assert (item.score if item.benchmark == "cmmlu" else item.lm_eval) == theirs_says
        assert item.prompt_hash == wanted["prompt_hash"]
        assert (
            item.logprobs == pytest.approx([r[0] for r in wanted["filtered_resps"]], abs=2e-4)
            or not item.logprobs
        )
    assert len(ours) == sum(len(task.items) for tasks_ in tasks.values() for task in tasks_)


def scores(
    tasks: dict[str, list[Task]], subject: ModelUnderTest, tokenizer: SentencePiece, folder: Path
) -> list[float | None]:
    with asking(subject, folder) as asked:
        return [item.score for item in harness.evaluate(tasks, harness.EngineLM(asked, tokenizer))]


def test_who_knows_everything_scores_1(
    tokenizer: SentencePiece, tmp_path: Path, exam: str, sums: str
) -> None:
    dialogues = [
        {"context": [f"男：第{n}天去哪里？", "女：山里。"], "split": "c3-d-test",
         "questions": [{"question": f"第{n}天他们去哪里？", "choice": ["学校里", "山里", "桥"], "answer": "山里"}]}
        for n in range(4)
    ]  # fmt: skip
    answers = {row["question"]: row["answer"] for row in exam_rows()}
    answers |= {f"{n}加{n}等于几？": f" 得 #### {2 * n}" for n in range(8)}
    answers |= {f"第{n}天他们去哪里？": "答案：山里" for n in range(4)}
    tasks = {
        "cmmlu": cmmlu(path=exam),
        "gsm8k": gsm8k(path=sums, shots=2),
        "c3": c3(path=lines(tmp_path / "c3.jsonl", dialogues)),
    }
    assert set(scores(tasks, Oracle(tokenizer, answers), tokenizer, tmp_path)) == {1.0}


def test_who_guesses_is_at_chance_within_the_interval(tokenizer: SentencePiece, tmp_path: Path) -> None:
    from ctllm_ray.evaluate.scoring.statistics import share

    path = lines(tmp_path / "cmmlu.jsonl", exam_rows(300, ("anatomy",)))
    found = share(
        [score or 0.0 for score in scores({"e": cmmlu(path=path)}, Guessing(), tokenizer, tmp_path)]
    )
    assert found.low < 0.25 < found.high
    assert found.high - found.low < 0.11


def test_an_item_that_does_not_fit_the_context_is_counted_and_never_cut(
    lm: harness.EngineLM, tmp_path: Path, sums: str
) -> None:
    rows = exam_rows(4, ("anatomy",))
    rows[-1]["question"] *= 60
    tasks = {
        "cmmlu": cmmlu(path=lines(tmp_path / "long.jsonl", rows), shots=0),
        "gsm8k": gsm8k(path=sums, shots=0, answer_tokens=600),
    }
    found = harness.evaluate(tasks, lm)
    assert [item.status for item in found] == [SCORED] * 3 + [TOO_LONG] + [TOO_LONG] * 8
    assert [item.score is None for item in found] == [item.status == TOO_LONG for item in found]


def test_nothing_is_asked_of_a_hub(
    lm: harness.EngineLM, exam: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refused(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    found = harness.evaluate(
        {"e": cmmlu(path=exam, limit=1), "s": gsm8k(path=sums, limit=1, answer_tokens=4)}, lm
    )
    assert len(found) == 3
    assert "HF_HUB_OFFLINE" not in os.environ
