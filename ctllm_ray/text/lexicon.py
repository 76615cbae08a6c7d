"""Matches word lists by category in one pass over folded text: 博*彩, 博 彩 and 賭博 match like plain words.

Spam hides its words, so an exact match sees little of it. A character is folded as it is read: width, case
and look-alikes through NFKC and a short table, Traditional to Simplified through OpenCC's character table,
built once per process. Up to two symbols between two characters of a term are skipped, but never a line
break, a comma or the end of a sentence. Matching is that of `automaton`, for all categories in one pass.

Where terms overlap the longest wins, whatever its category; a list line that starts with ! is an innocent
phrase which wins over the terms in it and counts for nothing. Chinese has no word boundaries to ask for, so a
term may be found inside two neighbouring words: lists should hold terms that are improbable that way (three
characters and more, mostly). Latin letters must stand alone (av is not in java), and symbols between two of
them are not skipped.

A pass costs about 11 ns a character (200 MB/s of UTF-8, one
core) plus 3 us a document, for all categories together.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from opencc import OpenCC

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.resolve import nearest
from ctllm_ray.text.kernels.automaton import (
    DIGIT,
    DISGUISED,
    DOT,
    GAP,
    LIMIT,
    MOST_LETTERS,
    OTHER,
    STOP,
    count,
    machine,
    scan,
)
from ctllm_ray.text.kernels.codepoints import buffers

BUILT_IN = str(Path(__file__).parent / "lexicons")

_LINE_ENDS = "\n\r\v\f\u0085\u2028\u2029"
_STOPS = _LINE_ENDS + "。｡！？!?…；;，,、：:《》〈〉“”‘’「」『』﹁﹂"
#: Look-alikes that neither NFKC nor OpenCC folds: rare variants of Han, Cyrillic and Greek letters like Latin
#: ones.
_LOOK_ALIKES = dict(
    zip("薇葳溦嶶伩愽囸帀асеорхукіνοα", "微微微微信博日币aceopxykivoa", strict=True)
)  # fmt: skip


class MatchSpan(NamedTuple):
    """A term that matches text[start:stop]."""

    start: int
    stop: int
    term: str
    category: str
    evaded: bool


class MatchTally(NamedTuple):
    """By text and category (as in `Lexicon.categories`): letters covered, hits,
    distinct terms, disguised hits."""

    letters: np.ndarray
    hits: np.ndarray
    distinct: np.ndarray
    evaded: np.ndarray


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Terms of all categories as one automaton. `of_term` is a term's category, -1 for an innocent phrase."""

    categories: tuple[str, ...]
    terms: tuple[str, ...]
    of_term: np.ndarray
    symbols: np.ndarray  # uint16, what each code point is
    root: np.ndarray
    nodes: np.ndarray

    def find(self, text: str) -> np.ndarray:
        """The hits of a text, one row each (int32): start, stop, term, 1 if disguised."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        values = np.empty((len(points) // 2 + 1, 4), np.int32)
        n = scan(points, self.symbols, self.root, self.nodes, values)
        rows = values[:n]
        return rows[self.of_term[rows[:, 2]] >= 0] if n else rows

    def spans(self, text: str) -> list[MatchSpan]:
        """The hits of a text in order, for a person to read."""
        rows = self.find(text).tolist()
        return [
            MatchSpan(a, b, self.terms[t], self.categories[self.of_term[t]], bool(e)) for a, b, t, e in rows
        ]

    def tally(self, texts: pa.Array) -> MatchTally:
        """The hits of a string array without nulls, counted by text and category."""
        letters = np.array([len(term) for term in self.terms], np.int32)
        counts = count(
            *buffers(texts), self.symbols, self.root, self.nodes, self.of_term, letters, len(self.categories)
        )
        return MatchTally(*np.moveaxis(counts, 2, 0))

    def index(self, category: str) -> int:
        """The index of a category in a tally. Raises `RecipeError` with the categories that exist."""
        if category not in self.categories:
            raise RecipeError(
                f"unknown lexicon category {category!r}", remedy=nearest(category, self.categories)
            )
        return self.categories.index(category)


@cache
def load(folder: str = BUILT_IN) -> Lexicon:
    """Loads a folder of lists: each `<category>.txt` holds one term a line; # starts a
    comment, ! an innocent phrase."""
    names = [name for name in storage.list_names(folder) if name.endswith(".txt")]
    if not names:
        raise InputError(
            "the lexicon folder holds no word list",
            where=folder,
            remedy="put files named <category>.txt into the folder",
        )
    lists = {}
    for name in names:
        lines = storage.read_bytes(storage.join(folder, name)).decode("utf-8-sig", "replace").splitlines()
        lists[name.removesuffix(".txt")] = [line.split("#")[0].strip() for line in lines]
    return build(lists)


_last: list[tuple[pa.Array, str, MatchTally]] = []


def tally(texts: pa.Array, folder: str) -> MatchTally:
    """The tally of a column of texts. The last one is cached, so all measures of a batch cost one pass."""
    if not (_last and _last[0][0] is texts and _last[0][1] == folder):
        _last[:] = [(texts, folder, load(folder).tally(texts))]
    return _last[0][2]


def build(lists: dict[str, list[str]]) -> Lexicon:
    """Builds the automaton of lists by category. A term in several categories belongs to the first."""
    fold, classes = _folding()
    letters: dict[int, int] = {
        ord(c): DIGIT + i for i, c in enumerate("0123456789abcdefghijklmnopqrstuvwxyz")
    }
    owners: dict[str, int] = {}
    for category, terms in enumerate(lists.values()):
        for line in filter(None, terms):
            term = "".join(
                chr(fold[ord(c)]) for c in line.lstrip("!") if ord(c) < LIMIT and not classes[ord(c)]
            )
            if not 2 <= len(term) <= MOST_LETTERS:
                raise InputError(
                    f"a lexicon term must have 2 to {MOST_LETTERS} letters: {line!r}",
                    remedy="correct or remove the term in the word list",
                )
            owners.setdefault(term, -1 if line.startswith("!") else category)
            for c in term:
                letters.setdefault(ord(c), len(letters) + DIGIT)
    root, nodes = machine([[letters[ord(c)] for c in term] for term in owners], len(letters) + DIGIT)
    symbols, of_term = _symbols(fold, classes, letters), np.array([*owners.values()], np.int32)
    return Lexicon(tuple(lists), tuple(owners), of_term, symbols, root, nodes)


@cache
def _folding() -> tuple[np.ndarray, np.ndarray]:
    """For each code point: what it folds to (uint32), and its class if it is not
    a letter (uint16, else 0)."""
    fold = np.arange(LIMIT, dtype=np.uint32)
    classes = np.zeros(LIMIT, np.uint16)
    for point in range(LIMIT):
        plain = unicodedata.normalize("NFKC", chr(point)).lower() if point > 0x7F else chr(point).lower()
        fold[point] = ord(plain) if len(plain) == 1 and plain < chr(LIMIT) else point
        if not chr(fold[point]).isalnum():
            classes[point] = GAP if unicodedata.category(chr(point))[0] in "PSZCM" else OTHER
    classes[[ord(c) for c in _STOPS]] = STOP
    classes[[ord("."), ord("．")]] = DOT
    han = "".join(map(chr, range(0x4E00, 0xA000)))
    simplified = OpenCC("t2s").convert("\n".join(han)).split("\n")
    fold[0x4E00:0xA000] = [ord(s) if s < chr(LIMIT) else ord(c) for c, s in zip(han, simplified, strict=True)]
    for look, like in _LOOK_ALIKES.items():
        fold[[ord(look), ord(look.upper())]] = ord(like)
    return fold[fold], classes  # twice: a compatibility form first folds to a Traditional character


def _symbols(fold: np.ndarray, classes: np.ndarray, letters: dict[int, int]) -> np.ndarray:
    """The automaton's symbol for each code point; unusual forms of letters carry a flag."""
    of_fold = np.zeros(LIMIT, np.uint16)
    of_fold[[*letters]] = [*letters.values()]
    symbols = np.where(classes > 0, classes, of_fold[fold])
    points = np.arange(LIMIT)
    ordinary = (fold == points) | ((points < 0x80) | ((points >= 0x4E00) & (points < 0xA000)))
    ordinary[[ord(c) for look in _LOOK_ALIKES for c in (look, look.upper())]] = False
    return np.where(ordinary | (symbols < DIGIT), symbols, symbols | DISGUISED).astype(np.uint16)
