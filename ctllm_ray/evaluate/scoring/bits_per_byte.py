"""Bits per byte by group on held-out documents: validation's
formula and documents, for a model under evaluation.

The nats of a document are the sum over all its targets, its end included; bits = nats / ln 2, over the bytes
of its text (train/validation/validate.py). A document that is longer than the context is cut into pieces
without overlap, as validation does; how many pieces it took stands in the item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ctllm_ray.base.errors import VersionConflict
from ctllm_ray.base.recipe_evaluation import Bits
from ctllm_ray.evaluate.models.answer_cache import key
from ctllm_ray.evaluate.models.batching import RequestBatching
from ctllm_ray.evaluate.scoring.item_results import SCORED, Item
from ctllm_ray.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ctllm_ray.train.validation.validate import HeldOutDocument

NAME = "bits_per_byte"
Groups = Mapping[str, Sequence["HeldOutDocument"]]


def documents(wanted: Bits, tokenizer: Tokenizer) -> Groups:
    """The documents of each group. Raises `VersionConflict` if another tokenizer made them."""
    from ctllm_ray.train.data import corpora
    from ctllm_ray.train.validation import validate  # these import torch

    sections = corpora.read_sections(wanted.corpora)
    vocabulary = corpora.shared_vocabulary(sections)
    if vocabulary.sha256 != tokenizer.sha256:
        raise VersionConflict(
            "the held-out documents have another tokenizer than the model",
            where=vocabulary.folder,
            remedy="set evaluate.bits.corpora to token sections made with the model's own tokenizer",
        )
    return validate.documents(corpora.held_out(sections), wanted.max_tokens)


def evaluate(groups: Groups, batching: RequestBatching) -> list[Item]:
    """Each document with its bits per byte; `part` is its group."""
    documents = [(group, document) for group, chosen in groups.items() for document in chosen]
    pieces = [_pieces(document.ids.tolist(), batching.context_tokens - 2) for _, document in documents]
    scores = iter(batching.scores([pair for pairs in pieces for pair in pairs]))
    nats = [-math.fsum(score.logprob for _ in pairs if (score := next(scores))) for pairs in pieces]
    return [_item(*each) for each in zip(documents, pieces, nats, strict=True)]


def _pieces(ids: list[int], most: int) -> list[tuple[list[int], list[int]]]:
    """Pieces of at most `most` targets, each with the one id before it."""
    return [(ids[at - 1 : at], ids[at : at + most]) for at in range(1, len(ids), most)]


def _item(pair: tuple[str, HeldOutDocument], pieces: Sequence[object], nats: float) -> Item:
    group, document = pair
    identity = key(document.ids.tolist())
    return Item(
        benchmark=NAME,
        part=group,
        item=document.doc_id,
        status=SCORED,
        score=nats / math.log(2) / max(1, document.text_bytes),
        answer=f"{len(pieces)} pieces",
        nats=nats,
        text_bytes=document.text_bytes,
        doc_hash=identity,
        prompt_hash=identity,
    )


def identity(groups: Groups) -> str:
    """A hash of the documents."""
    return key([[group, *(document.ids.tolist() for document in chosen)] for group, chosen in groups.items()])
