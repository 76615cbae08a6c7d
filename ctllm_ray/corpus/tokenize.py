"""Documents into framed token ids, one table at a time: [BOS] + content + [EOS].

BOS opens every document so that its first token has something to be predicted from, EOS tells the model that a text
can end; documents are packed into sequences later, in training. Encoding is three quarters of the cost: in one
process the whole section took 1.28 times as long as a bare SentencePiece loop (benchmarks/token_shards.py).
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
        framed(contents, tokenizer.bos_id, tokenizer.eos_id),
        pc.binary_length(documents["text"]).combine_chunks(),
        pc.utf8_length(documents["text"]).combine_chunks(),
        {name: documents["scores"].combine_chunks().field(name) for name in scores},
        tokens.id_type(tokenizer.vocab_size),
    )


def framed(contents: Sequence[Sequence[int] | np.ndarray], bos: int, eos: int) -> list[np.ndarray]:
    """The ids of each document between BOS and EOS: int32 views into one array."""
    offsets = np.concatenate([[0], np.cumsum([len(ids) + 2 for ids in contents], dtype=np.int64)]).astype(np.int64)
    flat = np.empty(offsets[-1], np.int32)
    flat[offsets[:-1]] = bos
    flat[offsets[1:] - 1] = eos
    places = list(pairwise(offsets.tolist()))
    for (start, stop), ids in zip(places, contents, strict=True):
        flat[start + 1 : stop - 1] = ids
    return [flat[start:stop] for start, stop in places]
