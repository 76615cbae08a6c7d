"""Checks that a tokenizer undoes itself: text to ids and back must be equal, in both forms.

A tokenizer that was trained here and loses text is an error that names the string. An existing tokenizer may have
a normalization of its own (NFC, one blank for a run of them): what it changes is counted and described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import convert
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece, Tokenizer

#: Strings that tokenizers are known to lose something of. Every tokenizer trained here is tried on them.
HARD_STRINGS = (
    "你好 世界",
    "你 好  世   界",
    " 前面有空格",
    "   前面有空格",
    "后面有空格 ",
    "后面有空格   ",
    " ",
    "a" + " " * 100 + "b",
    "\t行首\t行中\t\t行尾\t",
    " \t \n \n\n\t ",
    "▁",
    "你好▁世界",
    "▁▁ ▁ a▁b ▁",
    "▁\u0301 \ufdd0 \ufdd1 \ufdd01 \ufdd10 \ufdd1▁",
    "一行\r\n二行\r三行\n",
    "\u3000全角\u00a0空\u200b格\u2028行\ufeff",
    "👨‍👩‍👧‍👦🏳️‍🌈🇨🇳👍🏽",
    "e\u0301 é Å Å ﬁ ㎏ ก็ नि",
    "前\x00后 \x00\x01\x7f\x85",
    "𠮷野家 𪚥 ▅ ⁇ \ufffd \ufffe \U0010ffff",
    "<unk> <s> </s> <0x0A> <0xE2><0x96><0x81>",
)
BUG = "this is a bug: please report it with this message and the recipe"  # remedy where a trained one loses text
_EXCERPT_CHARS = 16  # shown on each side of the first difference


@dataclass(frozen=True)
class Change:
    """A text that does not come back; `index` is its place among the texts, `error` why it has no ids."""

    index: int
    form: str  # the file whose decoding was compared
    text: str
    result: str
    error: str = ""

    def __str__(self) -> str:
        """Both texts around the first difference, and where it is."""
        if self.error:
            return f"{self.text[: 2 * _EXCERPT_CHARS]!r} cannot be encoded: {self.error} ({self.form})"
        pairs = zip(self.text, self.result, strict=False)
        shorter = min(len(self.text), len(self.result))
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
        part = slice(max(0, at - _EXCERPT_CHARS), at + _EXCERPT_CHARS)
        return (
            f"{self.text[part]!r} comes back as {self.result[part]!r} "
            f"(character {at:,} of {len(self.text):,}, {self.form})"
        )


def forms(tokenizer: Tokenizer) -> dict[str, Tokenizer]:
    """The tokenizer by each file that other programs read it from."""
    fast = {convert.TOKENIZER: HuggingFace(tokenizer.files())}
    return {convert.MODEL: tokenizer, **fast} if isinstance(tokenizer, SentencePiece) else {**fast}


def find_changes(
    forms: Mapping[str, Tokenizer], texts: Sequence[str], contents: Sequence[np.ndarray]
) -> list[Change]:
    """The texts that do not come back, each once. `forms` are the same tokenizer by the name of its file,
    `contents` the ids of the texts."""
    changes = []
    for index, (text, ids) in enumerate(zip(texts, contents, strict=True)):
        results = {form: tokenizer.decode(ids) for form, tokenizer in forms.items()}
        wrong = [Change(index, form, text, result) for form, result in results.items() if result != text]
        changes += wrong[:1]
    return changes


def find_hard_changes(forms: Mapping[str, Tokenizer]) -> list[Change]:
    """The hard strings that do not come back. An existing tokenizer may have no ids at all for one of them."""
    changes = []
    (form, tokenizer), *_ = forms.items()
    for index, text in enumerate(HARD_STRINGS):
        try:
            ids = tokenizer.encode([text])
        except (
            Exception
        ) as error:  # the Rust side raises nothing more specific: no piece, and no unknown piece
            changes.append(Change(index, form, text, "", str(error)))
        else:
            changes += [replace(change, index=index) for change in find_changes(forms, [text], ids)]
    return changes


def check_forms(
    forms: Mapping[str, Tokenizer], texts: Sequence[str], contents: Sequence[np.ndarray], path: str
) -> None:
    """Raises if tokenizer.json, which other programs use, gives other ids than the tokenizer itself."""
    others = forms[convert.TOKENIZER].encode(texts)
    wrong = [text for text, a, b in zip(texts, contents, others, strict=True) if not np.array_equal(a, b)]
    if wrong:
        raise InputError(
            f"tokenizer.json made from this model gives other ids for {len(wrong)} of {len(texts)} texts, "
            f"the first begins {wrong[0][:40]!r}",
            where=path or "tokenizer",
            remedy="give the Hugging Face folder of that tokenizer" if path else BUG,
        )


def check_trained(
    forms: Mapping[str, Tokenizer],
    changes: Sequence[Change],
    hard_changes: Sequence[Change],
    ids: Sequence[str],
) -> None:
    """Raises, and names the string, if a tokenizer that was trained here does not give every text back.

    `ids` are those of the documents. An existing tokenizer keeps its habits: what it changes is a note in the
    report.
    """
    check_forms(forms, HARD_STRINGS, forms[convert.MODEL].encode(HARD_STRINGS), "")
    if changes:
        where = f"document {ids[changes[0].index]}"
        raise InputError(f"the trained tokenizer loses text: {changes[0]}", where=where, remedy=BUG)
    if hard_changes:
        what = f"the trained tokenizer loses text: {hard_changes[0]}"
        raise InputError(what, where="tokenizer", remedy=BUG)


def describe_changes(changes: Sequence[Change], hard_changes: Sequence[Change], documents: int) -> list[str]:
    if not changes and not hard_changes:
        return []
    return [
        f"this tokenizer changes {len(changes):,} of {documents:,} documents and {len(hard_changes)} of "
        f"{len(HARD_STRINGS)} hard strings: {[*changes, *hard_changes][0]}"
    ]
