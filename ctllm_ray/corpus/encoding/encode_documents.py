"""Encodes documents to framed token ids, one table at a time: BOS + content + EOS, or a foreign tokenizer's
frame.

BOS begins every document, so that its first token is predicted from something (`Tokenizer.document_ids`
describes foreign tokenizers). EOS teaches the model that texts end. Training packs documents into sequences
later. Encoding is three quarters of the cost: in one process the whole section took 1.28 times as long as a
bare SentencePiece loop (benchmarks/token_shards.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.shards import tokens
from ctllm_ray.tokenizer.tokenizer import Tokenizer


def tokenize(documents: pa.Table, tokenizer: Tokenizer, scores: Sequence[str]) -> pa.Table:
    """A TOKENS table of clean documents (`id`, `text`, `scores`): the same rows in the same order."""
    contents = tokenizer.encode(documents["text"].to_pylist())
    return tokens.table(
        documents["id"].combine_chunks(),
        frame_documents(contents, *tokenizer.document_ids),
        pc.binary_length(documents["text"]).combine_chunks(),
        pc.utf8_length(documents["text"]).combine_chunks(),
        {name: documents["scores"].combine_chunks().field(name) for name in scores},
        tokens.id_type(tokenizer.vocab_size),
    )


def frame_documents(
    contents: Sequence[Sequence[int] | np.ndarray], before: Sequence[int], behind: Sequence[int]
) -> list[np.ndarray]:
    """The ids of each document between a prefix and a suffix, as int32 views into one array."""
    first, last = len(before), len(behind)
    lengths = [len(ids) + first + last for ids in contents]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    flat = np.empty(offsets[-1], np.int32)
    for place, id_ in enumerate(before):
        flat[offsets[:-1] + place] = id_
    for place, id_ in enumerate(behind):
        flat[offsets[1:] - last + place] = id_
    places = list(pairwise(offsets.tolist()))
    for (start, stop), ids in zip(places, contents, strict=True):
        flat[start + first : stop - last] = ids
    return [flat[start:stop] for start, stop in places]
