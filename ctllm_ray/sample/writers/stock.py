"""The texts of the sample: plain UTF-8 files with a heading line `=== title` before each text.

`texts/<genre>.txt` holds clean texts, `noise/<defect>.txt` pages that nobody wants. Plain files, because
writing and proof-reading is done in an editor; one line format, because a text may hold any other mark (code,
quotes, tables).
"""

from __future__ import annotations

from dataclasses import dataclass

from ctllm_ray.sample import FOLDER

_HEADING = "=== "


@dataclass(frozen=True)
class Text:
    """A text with its address: `key` is `<file>/<number>`, counted from 1."""

    key: str
    title: str
    body: str

    @property
    def kind(self) -> str:
        """The file that the text is in: its genre, or its defect."""
        return self.key.partition("/")[0]

    @property
    def number(self) -> int:
        """Its position in that file, counted from 1."""
        return int(self.key.partition("/")[2])


def clean_texts() -> list[Text]:
    """The clean texts, by genre and position; `Text.kind` is the genre."""
    return _read_texts("texts")


def unwanted_texts() -> list[Text]:
    """The hand-written spam and notices; `Text.kind` is the defect."""
    return _read_texts("noise")


def _read_texts(folder: str) -> list[Text]:
    texts = []
    for file in sorted((FOLDER / folder).glob("*.txt")):
        pieces = ("\n" + file.read_text(encoding="utf-8")).split("\n" + _HEADING)[1:]
        for number, piece in enumerate(pieces, 1):
            title, _, body = piece.partition("\n")
            texts.append(Text(f"{file.stem}/{number}", title.strip(), body.rstrip("\n")))
    return texts
