"""Conversations in ids: token by token what the template says, cut or rejected where too long, and all
counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from ctllm_ray.base.recipe_training import Conversations
from ctllm_ray.corpus.encoding.encode_conversations import EncodedTable, encode_table
from ctllm_ray.shards.tokens import Form
from ctllm_ray.tokenizer import chat_template
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.tokenizer.conftest import documents, trained  # noqa: F401  # fixtures


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TWO_TURNS = [
    {"role": "system", "content": "简"},
    user("一<|end|>二"),
    says("山里"),
    user("又</s>"),
    says("桥。\n水"),
]


def pair(chosen: str, rejected: str, prompt: str = "春天") -> dict[str, Any]:
    return {
        "prompt": [user("水"), says("山"), user(prompt)],
        "chosen": [says(chosen)],
        "rejected": [says(rejected)],
    }


def rendered(
    tokenizer: SentencePiece,
    found: list[Any],
    form: Form = "conversations",
    max_tokens: int = 10**6,
    too_long: Any = "cut",
) -> EncodedTable:
    table = pa.table(
        {
            "id": [f"in/a#{number}" for number in range(len(found))],
            "text": [orjson.dumps(one).decode() for one in found],
            "scores": pa.array(
                [{"x": float(number)} for number in range(len(found))], pa.struct([("x", pa.float32())])
            ),
        }
    )
    return encode_table(
        table, form, tokenizer, Conversations(max_tokens=max_tokens, too_long=too_long), ["x"]
    )


def answered(ids: list[int], spans: list[int]) -> list[int]:
    """The ids in the spans."""
    return [i for start, stop in zip(spans[::2], spans[1::2], strict=True) for i in ids[start:stop]]


def test_an_answer_of_weight_0_is_context_and_no_answer(trained: SentencePiece) -> None:  # noqa: F811
    talk = [user("一"), says("错的"), user("不对"), says("山里")]
    whole = rendered(trained, [talk]).table
    masked = rendered(trained, [[talk[0], {**talk[1], "weight": 0}, *talk[2:]]]).table
    ids = whole["ids"][0].as_py()
    assert masked["ids"][0].as_py() == ids
    learnt = trained.decode(answered(ids, masked["answers"][0].as_py()))
    assert (learnt, trained.decode(answered(ids, whole["answers"][0].as_py()))) == ("山里", "错的山里")
    assert (masked["text_chars"][0].as_py(), whole["text_chars"][0].as_py()) == (2, 4)


def test_a_conversation_token_by_token(trained: SentencePiece) -> None:  # noqa: F811
    piece = trained.special_id
    texts = [ids.tolist() for ids in trained.encode([turn["content"] for turn in TWO_TURNS])]
    end = piece("<|end|>")
    golden = [piece("<s>")]
    for role, said in zip(("system", "user", "assistant", "user", "assistant"), texts, strict=True):
        golden += [piece(f"<|{role}|>"), *said, end]
    [row] = rendered(trained, [TWO_TURNS]).table.to_pylist()
    assert row["ids"] == golden
    assert answered(row["ids"], row["answers"]) == [*texts[2], end, *texts[4], end]
    assert (row["doc_id"], row["scores"]) == ("in/a#0", {"x": 0.0})
    assert (row["text_bytes"], row["text_chars"]) == (len("山里桥。\n水".encode()), 6)
    assert golden.count(end) == 5  # the users' own are text


def test_what_is_trained_is_what_serving_asks_with(trained: SentencePiece) -> None:  # noqa: F811
    [row] = rendered(trained, [TWO_TURNS]).table.to_pylist()
    for turns, start in ((2, row["answers"][0]), (4, row["answers"][2])):
        assert row["ids"][:start] == chat_template.encode_prompt(trained, TWO_TURNS[:turns]).tolist()


def test_a_pair_is_two_rows_and_only_what_comes_after_the_prompt_is_an_answer(trained: SentencePiece) -> None:  # noqa: F811
    found = rendered(trained, [pair("花开", "雨"), pair("风", "云")], "pairs")
    assert found.documents.tolist() == [0, 0, 1, 1]
    assert found.counts == {"kept": 2}
    end = trained.special_id("<|end|>")
    for row, (number, said) in zip(
        found.table.to_pylist(), [(0, "花开"), (0, "雨"), (1, "风"), (1, "云")], strict=True
    ):
        assert row["doc_id"] == f"in/a#{number}"
        assert answered(row["ids"], row["answers"]) == [*trained.encode([said])[0].tolist(), end]
        assert row["text_chars"] == len(said)


def test_too_long_ones_are_rejected_and_counted(trained: SentencePiece) -> None:  # noqa: F811
    short, long = [user("水"), says("山")], [user("水"), says("山" * 40)]
    room = len(rendered(trained, [short]).table["ids"][0])
    found = rendered(trained, [short, long, short], max_tokens=room, too_long="reject")
    assert found.counts == {"kept": 2, "reject:too_long": 1}
    assert found.documents.tolist() == [0, 2]


def test_a_cut_keeps_the_beginning_up_to_the_last_answer_that_is_left(trained: SentencePiece) -> None:  # noqa: F811
    whole = rendered(trained, [TWO_TURNS]).table.to_pylist()[0]
    first_stop, second_start = whole["answers"][1], whole["answers"][2]
    for room in range(1, len(whole["ids"])):
        found = rendered(trained, [TWO_TURNS], max_tokens=room)
        if room <= whole["answers"][0]:
            assert found.counts == {"reject:cut_without_answer": 1, "kept": 0}
            continue
        [row] = found.table.to_pylist()
        length = min(room, first_stop) if room <= second_start else room
        assert row["ids"] == whole["ids"][:length]
        assert row["answers"][-1] == length
        assert found.counts == {"kept": 1, "cut": 1}
        said = trained.decode(np.array(answered(row["ids"], row["answers"])))
        assert (row["text_chars"], row["text_bytes"]) == (len(said), len(said.encode()))


@pytest.mark.parametrize("room", range(20, 60))
def test_both_sides_of_a_pair_fit_together_and_the_longer_is_cut_first(
    trained: SentencePiece,  # noqa: F811
    room: int,
) -> None:
    given = pair("走过桥，水也清。" * 3, "雨")
    whole = [len(row["ids"]) for row in rendered(trained, [given], "pairs").table.to_pylist()]
    found = rendered(trained, [given], "pairs", max_tokens=room)
    lengths = [len(row["ids"]) for row in found.table.to_pylist()]
    assert (
        found.counts["kept"] + sum(n for kind, n in found.counts.items() if kind.startswith("reject:")) == 1
    )
    assert sum(lengths) <= room
    if sum(whole) <= room:
        assert lengths == whole
    elif lengths and whole[1] <= room // 2:
        assert lengths == [room - whole[1], whole[1]]


def test_a_pair_that_a_cut_makes_equal_is_rejected(trained: SentencePiece) -> None:  # noqa: F811
    given = pair("一" * 30 + "山", "一" * 30 + "水")
    found = rendered(trained, [given], "pairs", max_tokens=40)
    assert found.counts == {"kept": 0, "reject:cut_to_identical": 1}
    assert found.table.num_rows == 0
