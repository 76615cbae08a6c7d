"""Lists the documents of a batch for `ctllm batch`, even long after the run and without its checkpoints.

The order of the data is a pure function, so the batch is made again from the recipe and DATA.json, not looked
up in a log. A document's id is its address in the clean shards: `ctllm why` takes it and shows the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctllm_ray.base.errors import NotFound, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.tokenizer.tokenizer import load_tokenizer
from ctllm_ray.train.data.batch import IGNORED
from ctllm_ray.train.data.batches import Batches, DocumentPiece
from ctllm_ray.train.data.corpora import look
from ctllm_ray.train.tracking import records

EXCERPT_TOKENS = 48  # decoded tokens of each piece
EXCERPT_CHARS = 60


@dataclass(frozen=True)
class Shown:
    """A piece of a row, and the beginning of its text."""

    piece: DocumentPiece
    text: str


@dataclass(frozen=True)
class Look:
    """Rows [first, last) of a batch."""

    number: int
    first: int
    last: int
    targets: int  # of the whole global batch
    digest: str  # of the whole global batch
    shown: list[Shown]


def batch_of_step(recipe: Recipe, step: int) -> int:
    """The number of the batch of a step: as recorded; before that, as it will be if no batch is skipped."""
    if step < 1:
        raise NotFound(f"step {step} does not exist", remedy="steps count from 1; --batch counts from 0")
    recorded = records.read_steps(recipe.folder("train"))
    for record in recorded:
        if record.step == step:
            return record.batch
    if recorded and step > recorded[-1].step:
        return recorded[-1].batch + step - recorded[-1].step
    return step - 1


def inspect_batch(recipe: Recipe, number: int, rank: int = 0, world: int = 1) -> Look:
    """The pieces of a rank's rows of a batch in order, each with the beginning of its text.

    Raises `RecipeError` for a recipe that trains nothing, or where there is no such rank.
    """
    recipe.training()  # raises if there is no run
    if not 0 <= rank < world:
        raise RecipeError(
            f"rank {rank} does not exist: there are {world} workers", remedy="ranks count from 0"
        )
    corpora = look(recipe)
    batches = Batches(recipe, corpora)
    first, last = batches.share(rank, world)
    batch = batches.batch(number, first, last)
    tokenizer = load_tokenizer(corpora.vocabulary.folder)
    columns = np.zeros(batches.sequences, np.int64)
    shown = []
    for piece in batches.pieces(number, first, last):
        start = columns[piece.row]
        columns[piece.row] += piece.count
        row, stop = piece.row - first, start + min(piece.count, EXCERPT_TOKENS)
        # not from the labels: those of a conversation contain only the answers
        targets = [*batch.input_ids[row, start + 1 : stop].tolist(), batch.labels[row, stop - 1]]
        text = " ".join(
            tokenizer.decode([i for i in targets if i not in (tokenizer.eos_id, IGNORED)]).split()
        )
        shown.append(Shown(piece, text[:EXCERPT_CHARS]))
    return Look(number, first, last, batches.targets(number), batches.digest(number), shown)


def format_batch(look: Look) -> Iterator[str]:
    """Formats the batch as text: one line for the batch, one per row, one per piece."""
    yield f"batch {look.number}: {look.targets:,} targets, XXH3 {look.digest}, rows {look.first}-{look.last - 1}"
    row = -1
    for shown in look.shown:
        piece = shown.piece
        if piece.row != row:
            row = piece.row
            yield f"row {row}  {piece.group}"
        yield f"  {piece.doc_id}  targets {piece.start}-{piece.start + piece.count - 1}  {shown.text}"
