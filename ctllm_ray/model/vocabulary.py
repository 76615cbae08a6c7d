"""Adapts a trained model to another tokenizer: new rows for its input and output matrices.

Pieces that both tokenizers have keep their rows. For the others there are three ways:

* `mean_of_pieces`: the old tokenizer splits the text of the new piece, its row is the mean of theirs
  ("zip-tie"). Cheap and hard to beat where the old tokenizer knows the script.
* `multivariate_normal`: drawn with the mean and the covariance of the old rows (Hewitt 2021); about as good
  as learnt mappings in Mundra et al. 2024 (arXiv 2407.05841), and the one way that asks nothing of the
  pieces' text.
* `wechsel`: the mean of the 10 nearest old pieces, weighted by a softmax of similarity at temperature 0.1
  (Minixhofer et al. 2022). WECHSEL takes similarity from fastText vectors aligned across languages. None can
  be had here without a download, so the space is built from spelling alone: each piece is the sum of its
  character n-grams (1 to 3 long), weighted by rarity among the old pieces and hashed to 512 dimensions. In
  Chinese, where a character carries meaning, that finds kin (机器学习: 机器, 学习); across scripts it finds nothing,
  and the row is then drawn from the normal distribution of the old rows, as WECHSEL does for words without a
  vector.

The first and the third give convex combinations of old rows, so no new piece can out-score all old ones at
first. Both matrices get the same combinations. Costs: seconds; `wechsel` compares all pairs, about 16 TFLOP
for two vocabularies of 125,696.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers import LlamaForCausalLM

from ctllm_ray.base.errors import InputError
from ctllm_ray.token_bytes import list_piece_bytes

Method = Literal["mean_of_pieces", "multivariate_normal", "wechsel"]

#: Settings of WECHSEL's paper.
NEIGHBOURS, TEMPERATURE = 10, 0.1

DIMENSIONS = 512
_POSITIONS = 8  # positions per n-gram: two n-grams then collide in one of 8, not in all or none
_LONGEST_NGRAM = 3
_BLOCK = 1024  # new pieces compared at a time


@dataclass(frozen=True)
class Combinations:
    """Weights of old rows for each new row, in sparse form. A new row without weights has no source."""

    new: np.ndarray  # int64 [pairs], rising
    old: np.ndarray  # int64 [pairs]
    weight: np.ndarray  # float32 [pairs], summing to 1 for each new row that occurs


def extend(
    model: LlamaForCausalLM,
    old: Sequence[str],
    new: Sequence[str],
    encode: Callable[[str], Sequence[int]],
    *,
    method: Method,
    seed: int,
    same: Mapping[int, int] | None = None,
) -> LlamaForCausalLM:
    """Gives the model one row per piece of `new` instead of `old`, in place.

    `encode` is the old tokenizer's, without BOS and EOS. `same` names pieces that are one though spelt
    otherwise, by new id the old one: BOS, EOS. Raises `InputError` if the model has fewer rows than the
    old tokenizer has pieces.
    """
    matrix = model.model.embed_tokens.weight
    if matrix.shape[0] < len(old):
        raise InputError(
            f"the model has {matrix.shape[0]} embedding rows, but its tokenizer has {len(old)} pieces",
            remedy="give the tokenizer that belongs to the model",
        )
    shared = shared_pieces(old, new) | dict(same or {})
    result = combinations(old, new, encode, shared, method)
    tied = model.lm_head.weight is matrix
    rows = _rows(matrix.detach()[: len(old)], result, len(new), seed)
    head = rows if tied else _rows(model.lm_head.weight.detach()[: len(old)], result, len(new), seed + 1)
    model.model.embed_tokens.weight = torch.nn.Parameter(rows)
    model.lm_head.weight = model.model.embed_tokens.weight if tied else torch.nn.Parameter(head)
    model.model.embed_tokens.num_embeddings = model.lm_head.out_features = len(new)
    model.config.vocab_size = model.model.vocab_size = model.vocab_size = len(new)
    return model


def shared_pieces(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """New id to old id for pieces that stand for the same bytes, or are spelt alike, in both."""
    ids = {surface: number for number, surface in reversed(list(enumerate(list_piece_bytes(old))))}
    result = ((number, ids.get(surface)) for number, surface in enumerate(list_piece_bytes(new)))
    return {number: old_number for number, old_number in result if old_number is not None}


def combinations(
    old: Sequence[str],
    new: Sequence[str],
    encode: Callable[[str], Sequence[int]],
    shared: Mapping[int, int],
    method: Method,
) -> Combinations:
    """The old rows that make up each new row: one for a shared piece, several by
    `mean_of_pieces` and `wechsel`."""
    pairs = [(number, old_number, 1.0) for number, old_number in shared.items()]
    others = [number for number in range(len(new)) if number not in shared]
    if method == "mean_of_pieces":
        pairs += _split_pieces(list_piece_bytes(new), others, encode)
    if method == "wechsel":
        pairs += _nearest(list_piece_bytes(old), list_piece_bytes(new), others)
    pairs.sort()
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    return Combinations(
        np.array(columns[0], int), np.array(columns[1], int), np.array(columns[2], np.float32)
    )


def _split_pieces(
    new: Sequence[bytes], others: Iterable[int], encode: Callable[[str], Sequence[int]]
) -> list[tuple[int, int, float]]:
    """Equal weights of the old pieces that each new piece splits into."""
    weights = []
    for number in others:
        parts = [int(part) for part in encode(new[number].decode("utf-8", "ignore"))]
        weights += [(number, part, times / len(parts)) for part, times in Counter(parts).items()]
    return weights


def _nearest(
    old: Sequence[bytes], new: Sequence[bytes], others: Sequence[int]
) -> list[tuple[int, int, float]]:
    """Softmax weights of the nearest old pieces by spelling; none for a piece that
    shares no n-gram with them."""
    rarity = _rarity(old)
    old_vectors = torch.from_numpy(_vectors(old, rarity))
    results: list[tuple[int, int, float]] = []
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        here = torch.from_numpy(_vectors([new[number] for number in block], rarity))
        similarity, ids = (here @ old_vectors.T).topk(min(NEIGHBOURS, len(old)), dim=1)
        weights = torch.softmax(similarity / TEMPERATURE, dim=1)
        for row, number in enumerate(block):
            if here[row].any():
                results += zip([number] * NEIGHBOURS, ids[row].tolist(), weights[row].tolist(), strict=False)
    return results


def _ngrams(piece: bytes) -> list[str]:
    """Character n-grams of a piece; none if its bytes are not text."""
    if piece.startswith(b"\xff"):
        return []
    text = piece.decode("utf-8", "ignore").strip()
    sizes = range(1, min(_LONGEST_NGRAM, len(text)) + 1)
    return [text[i : i + n] for n in sizes for i in range(len(text) - n + 1)]


def _rarity(pieces: Sequence[bytes]) -> dict[str, float]:
    """Weight of each n-gram of the old pieces: log(number of pieces / pieces that contain it)."""
    counts = Counter(ngram for piece in pieces for ngram in set(_ngrams(piece)))
    return {ngram: math.log(1 + len(pieces) / count) for ngram, count in counts.items()}


def _vectors(pieces: Sequence[bytes], rarity: Mapping[str, float]) -> np.ndarray:
    """Unit vectors, float32 [pieces, DIMENSIONS]; zero for a piece without a known n-gram."""
    rows, columns, values = [], [], []
    for row, piece in enumerate(pieces):
        for ngram, times in Counter(_ngrams(piece)).items():
            if ngram in rarity:
                places, signs = _places(ngram)
                rows.append(np.full(_POSITIONS, row))
                columns.append(places)
                values.append(signs * (times * rarity[ngram]))
    out = np.zeros((len(pieces), DIMENSIONS), np.float32)
    if rows:
        np.add.at(out, (np.concatenate(rows), np.concatenate(columns)), np.concatenate(values))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _places(ngram: str) -> tuple[np.ndarray, np.ndarray]:
    """The positions of an n-gram in a vector, and their signs: a count sketch, equal on every machine."""
    data = ngram.encode("utf-8", "surrogatepass")
    hashes = np.array([zlib.crc32(data, salt) for salt in range(_POSITIONS)], np.uint32)
    return (hashes >> 1) % DIMENSIONS, (hashes & 1).astype(np.float32) * 2 - 1


def _rows(matrix_OD: torch.Tensor, combined: Combinations, count: int, seed: int) -> torch.Tensor:
    """New rows [count, D]: the combinations; other rows are drawn from the normal
    distribution of the old rows."""
    rows_ND = torch.zeros(count, matrix_OD.shape[1], dtype=matrix_OD.dtype)
    new = torch.from_numpy(combined.new)
    for start in range(
        0, len(new), 1 << 16
    ):  # in parts: the new pieces split into a few times as many old ones
        part = slice(start, start + (1 << 16))
        taken = (
            matrix_OD[torch.from_numpy(combined.old[part])] * torch.from_numpy(combined.weight[part])[:, None]
        )
        rows_ND.index_add_(0, new[part], taken)
    drawn = torch.ones(count, dtype=torch.bool)
    drawn[new] = False
    if drawn.any():
        rows_ND[drawn] = normal(matrix_OD, int(drawn.sum()), seed)
    return rows_ND


def normal(matrix_OD: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Draws [count, D] with mean and covariance of the rows of a matrix; the
    same seed gives the same draws."""
    rows_OD = matrix_OD.double()
    mean_D = rows_OD.mean(0)
    centred_OD = rows_OD - mean_D
    variances_D, axes_DD = torch.linalg.eigh(centred_OD.T @ centred_OD / max(1, len(rows_OD) - 1))
    generator = torch.Generator().manual_seed(seed)
    standard_ND = torch.randn(count, len(mean_D), dtype=torch.float64, generator=generator)
    # fewer rows than dimensions give zero variances, and rounding makes some negative
    return (mean_D + (standard_ND * variances_D.clamp_min(0).sqrt()) @ axes_DD.T).to(matrix_OD.dtype)
