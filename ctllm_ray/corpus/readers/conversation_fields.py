"""Fields next to the text of a conversation that change
its meaning: which are supported, and which are refused.

Tools, pictures, thoughts, a thumb down, weights: files have them under many names. What a source has no way
to keep is a reject, since an answer without it would be learnt as something else. A field that holds nothing
is no matter.
"""

from __future__ import annotations

from typing import Any

#: Fields that say whether an answer is trained on: OpenAI, ms-swift (two), axolotl (two).
MASKS = ("weight", "loss", "loss_scale", "train", "training")
#: axolotl's fields that say this for parts of an answer.
PART_MASKS = ("train_detail", "training_detail")
#: Fields that say whether an answer is good: KTO's, as in TRL and LLaMA-Factory.
THUMBS = ("label", "kto_tag")
TOOLS = ("tools", "functions")
#: Fields with a part of a conversation that would be lost.
UNREAD = {
    "reasoning": (
        "reasoning_content", "reasoning", "reasoning_details", "thinking", "thought", "thoughts", "cot",
        "complex_cot",
        "chain_of_thought",
    ),
    "not_text": ("images", "image", "videos", "video", "audios", "audio"),
}  # fmt: skip

_SAYS_NOTHING = ("", "[]", "{}", "null", "none")
_SWITCHES = ("on", "off", "true", "false")  # values that switch reasoning on or off, but are not reasoning


class Unfit(Exception):
    """A record that cannot become a conversation: the kind, as in `reject`, and the reason in words."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


def check_record(fields: dict[str, Any], *read: str) -> None:
    """Raises `Unfit` if a record has fields that change its answers. `read` are the
    fields that its source reads."""
    _check({name: value for name, value in fields.items() if name not in read}, "the record")
    if (weight := fields.get("weight")) is not None and weight not in (0, 1):
        raise Unfit("conversation.weight", f"'weight' is {weight!r}; a record is trained on (1) or not (0)")
    for name in MASKS:
        if fields.get(name) == 0 and type(fields[name]) in (bool, int):  # a loss of 2.3 is a measurement
            raise Unfit("conversation.nothing_to_learn", f"the record has {name!r} {fields[name]}")


def refuse(fields: dict[str, Any], *names: str) -> None:
    """Raises `Unfit` if a record has one of these fields next to whole conversations,
    which have no place for it."""
    for name in names:
        if holds(fields.get(name)):
            raise Unfit(
                "conversation.unread_field",
                f"{name!r} next to complete turns: it is unclear where it belongs",
            )


def check_turn(turn: dict[str, Any], field: str) -> None:
    """Raises `Unfit` if a turn has fields that change its answer."""
    _check(turn, f"a turn of {field!r}")
    for name in PART_MASKS:
        if holds(turn.get(name)):
            raise Unfit(
                "conversation.weight",
                f"{name!r} is not supported: an answer is trained on completely or not at all",
            )


def is_learnt(turn: dict[str, Any]) -> bool:
    """False if a turn says that it is not trained on. Raises `Unfit` for a fractional weight."""
    masks = {name: turn[name] for name in MASKS if turn.get(name) is not None}
    for name, value in masks.items():
        if value not in (0, 1):  # True and False are equal to these
            raise Unfit(
                "conversation.weight", f"{name!r} is {value!r}; an answer is trained on (1) or not (0)"
            )
    return all(masks.values())


def holds(value: Any) -> bool:
    """True for a value with content: not null, false, empty, or a list of these."""
    if type(value) is str:
        return value.strip().lower() not in _SAYS_NOTHING
    if type(value) is list:
        return any(map(holds, value))
    return value not in (None, False) and value != {}


def _check(fields: dict[str, Any], where: str) -> None:
    """The checks that records and turns share."""
    by_name = {name.lower(): value for name, value in fields.items()}
    for name in TOOLS:
        if holds(by_name.get(name)):
            raise Unfit(
                "conversation.tool_call", f"{where} has {name!r}, which the chat template cannot express"
            )
    for name in THUMBS:
        value = by_name.get(name)
        if value is not None and str(value).lower() in ("false", "0"):
            raise Unfit(
                "conversation.unwanted", f"{name!r} of {where} is {value!r}: its answer is a bad example"
            )
    for kind, names in UNREAD.items():
        for name in names:
            if holds(value := by_name.get(name)) and not (
                kind == "reasoning" and str(value).lower() in _SWITCHES
            ):
                raise Unfit(
                    f"conversation.{kind}", f"{where} has {name!r}, which no chat template here can express"
                )
