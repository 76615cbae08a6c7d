"""Conversations and pairs: four forms become one, what cannot be learnt from is refused by name, nothing is
lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from ctllm_ray import sample
from ctllm_ray.base.storage import list_files
from ctllm_ray.corpus.sources.messages import spans

from .source_rows import errors, positions, rows, tables


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def from_(who: str, value: str) -> dict[str, str]:
    return {"from": who, "value": value}


S, Q, A, NO = (
    said("system", "简短"),
    said("user", "问？"),
    said("assistant", "答。\n"),
    said("assistant", "不"),
)
HUMAN, GPT = from_("human", "问？"), from_("gpt", "答。\n")
HISTORY = [["问？", "答。\n"]]
PAIR = {"prompt": [Q], "chosen": [A], "rejected": [NO]}
TRANSCRIPT = "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: so\n\nAssistant: "
HI_HO_SO = [said("user", "hi"), said("assistant", "ho"), said("user", "so")]


def asked(question: str) -> dict[str, Any]:
    """The pair of another question."""
    return PAIR | {"prompt": [said("user", question)]}


#: A line of each form, and the conversation that it is.
FORMS: list[tuple[str, dict[str, Any], Any]] = [
    ("messages", {"messages": [S, Q, A]}, [S, Q, A]),
    ("messages", {"messages": [Q, A, Q, A]}, [Q, A, Q, A]),
    ("messages", {"messages": [said("developer", "简短"), Q, {**A, "name": "x"}]}, [S, Q, A]),
    ("messages", {"messages": [said("system", " "), Q, A], "tools": []}, [Q, A]),
    ("messages", {"messages": [said("user", [{"type": "text", "text": t} for t in "问？"]), A]}, [Q, A]),
    ("sharegpt", {"conversations": [HUMAN, GPT]}, [Q, A]),
    (
        "sharegpt",
        {"conversations": [from_("USER", "问？"), from_("chatgpt", "答。\n")], "system": "简短"},
        [S, Q, A],
    ),
    ("sharegpt", {"conversations": [from_("system", "简短"), HUMAN, GPT], "tools": "[]"}, [S, Q, A]),
    ("alpaca", {"instruction": "问？", "input": "", "output": "答。\n"}, [Q, A]),
    ("alpaca", {"instruction": "问", "input": "？", "output": "答。\n"}, [said("user", "问\n？"), A]),
    (
        "alpaca",
        {"instruction": "问？", "output": "答。\n", "history": HISTORY, "system": "简短"},
        [S, Q, A, Q, A],
    ),
    ("preference", {"prompt": "问？", "chosen": "答。\n", "rejected": "不"}, PAIR),
    ("preference", {"prompt": [S, Q], "chosen": A, "rejected": [NO]}, PAIR | {"prompt": [S, Q]}),
    (
        "preference",
        {"prompt": "问？", "chosen": "答。\n", "rejected": "不", "history": HISTORY, "system": "简短"},
        PAIR | {"prompt": [S, Q, A, Q]},
    ),
    ("preference", {"chosen": [Q, A], "rejected": [Q, NO]}, PAIR),
    ("preference", {"prompt": "问", "input": "？", "chosen": "答。\n", "rejected": "不"}, asked("问\n？")),
    ("preference", {"prompt": "问？", "input": "", "chosen": "答。\n", "rejected": "不"}, PAIR),
    ("preference", {"prompt": "问？", "chosen": [Q, A], "rejected": [Q, NO]}, PAIR),
    (
        "preference",
        {"prompt": [S, Q], "chosen": [S, Q, A], "rejected": [S, Q, NO]},
        PAIR | {"prompt": [S, Q]},
    ),
    (
        "preference",
        {"prompt": [Q, {**A, "weight": 0}, Q], "chosen": A, "rejected": NO},
        PAIR | {"prompt": [Q, A, Q]},
    ),
    (
        "messages",
        {"messages": [Q, {**A, "weight": 0}, Q, {**NO, "weight": 1}]},
        [Q, {**A, "weight": 0}, Q, NO],
    ),
    (
        "messages",
        {"messages": [Q, {**A, "loss": False}, Q, {**NO, "loss": True}]},
        [Q, {**A, "weight": 0}, Q, NO],
    ),
    (
        "sharegpt",
        {"conversations": [HUMAN, {**GPT, "train": False}, HUMAN, GPT]},
        [Q, {**A, "weight": 0}, Q, A],
    ),
    ("messages", {"messages": [{**Q, "weight": 0}, A], "label": True}, [Q, A]),
    ("messages", {"messages": [Q, {**A, "reasoning_content": ""}], "images": [], "label": "医疗"}, [Q, A]),
    ("messages", {"messages": [Q, A], "system": "简短"}, [S, Q, A]),
    ("messages", {"messages": [S, Q, A], "system": "简短"}, [S, Q, A]),
    ("messages", {"messages": [said("user", [{"type": "input_text", "text": "问？"}]), A]}, [Q, A]),
    ("messages", {"messages": [Q, said("assistant", [{"type": "output_text", "text": "答。\n"}])]}, [Q, A]),
    ("messages", {"messages": [Q, A], "images": [None], "tools": "null", "history": [], "loss": 2.3}, [Q, A]),
    ("messages", {"messages": [Q, {**A, "reasoning": "off"}], "reasoning": True, "weight": 1}, [Q, A]),
    ("messages", {"messages": [Q, {**A, "loss_scale": 0}, Q, A]}, [Q, {**A, "weight": 0}, Q, A]),
    (
        "sharegpt",
        {"conversations": [HUMAN, {**GPT, "training": False}, HUMAN, GPT]},
        [Q, {**A, "weight": 0}, Q, A],
    ),
    ("preference", {"chosen": [Q, A], "rejected": [Q, NO], "system": "简短"}, PAIR | {"prompt": [S, Q]}),
    (
        "preference",
        {"prompt": [S, Q], "chosen": [Q, A], "rejected": [Q, NO], "history": HISTORY[:0]},
        PAIR | {"prompt": [S, Q]},
    ),
    (
        "preference",
        {"prompt": "问？", "chosen": [Q, A], "rejected": [Q, NO], "history": HISTORY, "system": "简短"},
        PAIR | {"prompt": [S, Q, A, Q]},
    ),
    (
        "preference",
        {"prompt": TRANSCRIPT, "chosen": "yes", "rejected": "no"},
        {"prompt": HI_HO_SO, "chosen": [said("assistant", "yes")], "rejected": [said("assistant", "no")]},
    ),
    (
        "preference",
        {"prompt": TRANSCRIPT, "chosen": f"{TRANSCRIPT}yes", "rejected": f"{TRANSCRIPT}no"},
        {"prompt": HI_HO_SO, "chosen": [said("assistant", "yes")], "rejected": [said("assistant", "no")]},
    ),
    (
        "preference",
        {"chosen": f"{TRANSCRIPT}yes", "rejected": f"{TRANSCRIPT}no"},
        {"prompt": HI_HO_SO, "chosen": [said("assistant", "yes")], "rejected": [said("assistant", "no")]},
    ),
]
#: A line that is refused, and why.
UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"talk": []}, "error.missing_field"),
    ("messages", {"messages": "hi"}, "error.wrong_type"),
    ("messages", {"messages": ["hi"]}, "error.wrong_type"),
    ("messages", {"messages": [{"content": "hi"}]}, "error.missing_field"),
    ("messages", {"messages": [{"role": "user", "content": 3}, A]}, "error.wrong_type"),
    ("messages", {"messages": [{"role": "narrator", "content": "hi"}, A]}, "error.unknown_role"),
    ("messages", {"messages": []}, "conversation.no_answer"),
    ("messages", {"messages": [S]}, "conversation.no_answer"),
    ("messages", {"messages": [Q, A, Q]}, "conversation.no_answer"),
    ("messages", {"messages": [A, Q]}, "conversation.role_order"),
    ("messages", {"messages": [Q, Q, A]}, "conversation.role_order"),
    ("messages", {"messages": [Q, S, A]}, "conversation.role_order"),
    ("messages", {"messages": [Q, {"role": "assistant", "content": " \n"}]}, "conversation.empty_answer"),
    ("messages", {"messages": [Q, {"role": "assistant", "content": None}]}, "conversation.empty_answer"),
    ("messages", {"messages": [{"role": "user", "content": ""}, A]}, "conversation.empty_question"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, A]}, "conversation.not_text"),
    ("messages", {"messages": [Q, {**A, "tool_calls": [{}]}]}, "conversation.tool_call"),
    ("messages", {"messages": [Q, A], "tools": [{"type": "function"}]}, "conversation.tool_call"),
    ("messages", {"messages": [Q, A], "label": False}, "conversation.unwanted"),
    ("sharegpt", {"conversations": [HUMAN, GPT], "kto_tag": False}, "conversation.unwanted"),
    ("alpaca", {"instruction": "问", "output": "答", "label": False}, "conversation.unwanted"),
    ("messages", {"messages": [Q, {"role": "assistant", "text": "答"}]}, "error.missing_field"),
    ("messages", {"messages": [Q, A], "history": HISTORY}, "conversation.unread_field"),
    ("messages", {"messages": [S, Q, A], "system": "长"}, "conversation.role_order"),
    ("messages", {"messages": [{**Q, "functions": [{"name": "f"}]}, A]}, "conversation.tool_call"),
    ("messages", {"messages": [Q, {"role": "ipython", "content": "1"}, A]}, "conversation.tool_call"),
    ("messages", {"messages": [Q, A], "label": 0}, "conversation.unwanted"),
    ("messages", {"messages": [Q, A], "kto_tag": "False"}, "conversation.unwanted"),
    ("messages", {"messages": [Q, {**A, "label": False}]}, "conversation.unwanted"),
    ("messages", {"messages": [Q, A], "weight": 0}, "conversation.nothing_to_learn"),
    ("messages", {"messages": [Q, A], "train": False}, "conversation.nothing_to_learn"),
    ("messages", {"messages": [Q, A], "weight": 0.5}, "conversation.weight"),
    ("messages", {"messages": [Q, {**A, "train_detail": [{"begin_offset": 0}]}]}, "conversation.weight"),
    ("messages", {"messages": [Q, {**A, "reasoning_details": [{"text": "想"}]}]}, "conversation.reasoning"),
    ("alpaca", {"instruction": "问", "output": "答", "Complex_CoT": "想想"}, "conversation.reasoning"),
    ("sharegpt", {"conversations": [HUMAN, GPT], "history": HISTORY}, "conversation.unread_field"),
    ("preference", {"chosen": [Q, A], "rejected": [Q, NO], "history": HISTORY}, "conversation.unread_field"),
    ("preference", {"chosen": [Q, A], "rejected": [Q, NO], "input": "？"}, "conversation.unread_field"),
    ("preference", {"prompt": TRANSCRIPT, "input": "？", "chosen": "答", "rejected": "不"}, "error.wrong_type"),
    ("messages", {"messages": [Q, {**A, "weight": 0}]}, "conversation.nothing_to_learn"),
    ("messages", {"messages": [Q, {**A, "weight": 0.5}]}, "conversation.weight"),
    ("messages", {"messages": [Q, {**A, "weight": "0"}]}, "conversation.weight"),
    ("messages", {"messages": [Q, {**A, "reasoning_content": "想想"}]}, "conversation.reasoning"),
    ("sharegpt", {"conversations": [HUMAN, {**GPT, "thinking": "想"}]}, "conversation.reasoning"),
    ("alpaca", {"instruction": "问", "output": "答", "reasoning": "想想"}, "conversation.reasoning"),
    ("messages", {"messages": [said("user", "<image>这是什么？"), A], "images": ["a.png"]}, "conversation.not_text"),
    ("sharegpt", {"conversations": [{**HUMAN, "image": "a.png"}, GPT]}, "conversation.not_text"),
    ("alpaca", {"instruction": "问", "output": "答", "videos": ["a.mp4"]}, "conversation.not_text"),
    ("preference", {"prompt": [Q], "input": "？", "chosen": "答", "rejected": "不"}, "error.wrong_type"),
    ("preference", {"prompt": "问", "chosen": "答", "rejected": {**NO, "weight": 0}}, "conversation.weight"),
    ("preference", {"prompt": "问", "chosen": "答", "rejected": "不", "images": ["a.png"]}, "conversation.not_text"),
    ("sharegpt", {"conversations": [HUMAN, from_("function_call", "{}")]}, "conversation.tool_call"),
    ("sharegpt", {"conversations": [HUMAN, from_("bing", "答")]}, "error.unknown_role"),
    ("alpaca", {"instruction": "问", "output": ""}, "conversation.empty_answer"),
    ("alpaca", {"instruction": "", "input": "", "output": "答"}, "conversation.empty_question"),
    ("alpaca", {"instruction": "问"}, "error.missing_field"),
    ("alpaca", {"instruction": "问", "output": "答", "history": [["问"]]}, "error.wrong_type"),
    ("alpaca", {"instruction": "问", "output": "答", "history": "问"}, "error.wrong_type"),
    ("preference", {"prompt": "问", "chosen": "答", "rejected": "答"}, "pair.identical"),
    ("preference", {"prompt": "问", "chosen": "答", "rejected": ""}, "conversation.empty_answer"),
    ("preference", {"prompt": "问", "chosen": [], "rejected": "答"}, "conversation.no_answer"),
    ("preference", {"prompt": "问", "chosen": "答"}, "error.missing_field"),
    ("preference", {"chosen": "答", "rejected": "不"}, "error.missing_field"),
    ("preference", {"chosen": [Q, A], "rejected": [{**Q, "content": "别"}, A]}, "pair.no_common_prompt"),
    ("preference", {"prompt": [Q, A], "chosen": "答", "rejected": "不"}, "conversation.role_order"),
]  # fmt: skip


def written(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(("use", "line", "meant"), FORMS)
def test_every_form_becomes_the_same_conversation(
    tmp_path: Path, use: str, line: dict[str, Any], meant: Any
) -> None:
    [found] = rows(use, written(tmp_path / "in.jsonl", [line]))
    assert (found["reject"], found["raw"]) == (None, None)
    assert json.loads(found["text"]) == meant
    assert found["text"].encode() == orjson.dumps(meant)  # compact, and no character is escaped


@pytest.mark.parametrize(("use", "line", "kind"), UNFIT)
def test_what_cannot_be_learnt_from_is_refused_by_name(
    tmp_path: Path, use: str, line: dict[str, Any], kind: str
) -> None:
    path = written(tmp_path / "in.jsonl", [line])
    [found] = rows(use, path)
    assert (found["reject"], found["text"]) == (kind, None)
    assert found["title"]  # the reason in words
    assert found["raw"] == path.read_bytes().rstrip(b"\n")[:64]


def test_options_name_the_fields(tmp_path: Path) -> None:
    line = {"question": "问？", "std_answer": "答。\n"}
    [found] = rows(
        "alpaca", written(tmp_path / "a.jsonl", [line]), instruction="question", output="std_answer"
    )
    assert json.loads(found["text"]) == [Q, A]
    line = {"instruction": "问？", "cot": "答。\n"}
    [found] = rows("alpaca", written(tmp_path / "c.jsonl", [line]), output="cot")
    assert json.loads(found["text"]) == [Q, A]  # a field that an option names is read, whatever it is called
    turns = [{"from": "human", "value": "问？"}]
    pair = {"conversations": turns, "chosen": GPT, "rejected": from_("gpt", "不")}
    path = written(tmp_path / "b.jsonl", [pair])
    [found] = rows("preference", path, prompt="conversations", role="from", content="value")
    assert json.loads(found["text"])["chosen"] == [A]


BAD_BYTE = b'{"messages": [{"role": "user", "content": "\xff"}, {"role": "assistant", "content": "a"}]}'


def test_lines_that_are_no_objects_are_the_errors_of_json_lines_and_positions_are_offsets(
    tmp_path: Path,
) -> None:
    good = json.dumps({"messages": [Q, A]}).encode()
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join([good, b"{broken", b"[1]", b"", BAD_BYTE, good]))
    found = rows("messages", path)
    assert errors(found) == ["error.invalid_json", "error.wrong_type", "error.invalid_utf8"]
    assert positions(found)[-1] == path.stat().st_size - len(good)


def test_any_cutting_gives_the_same_rows(tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.jsonl", [{"messages": [Q, {**A, "content": "答" * (i % 90 + 1)}]} for i in range(300)]
    )
    [file] = list_files(str(path))
    assert len(spans(file, 1000)) > 10
    assert rows("messages", path, split_bytes=1000) == rows("messages", path)


def test_the_sample_is_read_without_a_refusal() -> None:
    found = {
        "talks.jsonl.zst": "messages", "talks_en.jsonl.zst": "sharegpt",
        "instructions.jsonl.zst": "alpaca", "pairs.jsonl.zst": "preference",
    }  # fmt: skip
    for name, use in found.items():
        read = rows(use, sample.path(name))
        assert errors(read) == []
        assert len(read) > 50
        assert len({row["text"] for row in read}) > 0.97 * len(read)  # two sums may be the same


#: What is refused of the real files, by kind: found by reading them, and looked at.
REAL = {
    "sft/alpaca_en": ("messages", 7174, {}),
    "sft/alpaca_zh": ("messages", 14347, {"conversation.empty_answer": 6}),
    "sft/codealpaca_2k": ("messages", 1418, {"conversation.empty_answer": 2}),
    "sft/moss_multiturn": ("messages", 761, {}),
    "sft/sharegpt_zh_medicalgpt": ("messages", 1390, {"conversation.no_answer": 4}),
    "sft/glaive_toolcall_zh": ("sharegpt", 202, {"conversation.tool_call": 130}),
    "preference/pairs_zh_en": ("preference", 799, {}),
    "preference/hh_rlhf_harmless_test": (
        "preference", 1599, {"conversation.empty_answer": 4, "conversation.role_order": 6},
    ),
    # one answer and a thumb: no pairs
    "preference/kto_en": ("preference", 217, {"error.missing_field": 217}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files_lose_only_what_is_told(shared_data: Path, name: str) -> None:
    use, count, refused = REAL[name]
    found = [
        row for table in tables(use, shared_data / f"{name}.jsonl.zst") for row in table["reject"].to_pylist()
    ]
    assert len(found) == count
    assert Counter(kind for kind in found if kind) == refused
