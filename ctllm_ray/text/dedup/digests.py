"""128-bit hashes of texts. Two documents with the same digest count as the same document.

xxh3_128 of the UTF-8 bytes, as two unsigned numbers, so that keys are shuffled and sorted as plain columns.
At 128 bits a false match among 10**12 documents has a probability below 10**-14: no Bloom filter, and no
document lost to one. Equal folded texts count as equal documents; a text that folds to nothing (a row of
emoji) is hashed as it is, and no folded text can be equal to it, since it holds a letter.

Cost: 0.5 us a row and 10 GB/s.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ctllm_ray.text.kernels.codepoints import buffers
from ctllm_ray.text.kernels.runs import starts_of


def digests(texts: pa.Array) -> np.ndarray:
    """uint64[rows, 2]: upper and lower half of the digest of each text (a string array without nulls)."""
    data, offsets = buffers(texts)
    view, ends = memoryview(data.data), offsets.tolist()
    packed = b"".join(xxhash.xxh3_128_digest(view[start:end]) for start, end in pairwise(ends))
    return np.frombuffer(packed, ">u8").astype(np.uint64).reshape(-1, 2)


def folded_digests(texts: pa.Array, folded: pa.Array) -> np.ndarray:
    """uint64[rows, 2]: the digest of each folded text; of the raw text if folding leaves nothing."""
    return digests(pc.if_else(pc.equal(pc.binary_length(folded), 0), texts, folded))


def first_rows(keys: np.ndarray) -> np.ndarray:
    """int64[rows]: for each key (uint64[rows, 2]) the first row with the same key, possibly itself."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in the order of their rows
    starts = starts_of(keys[order, 0], keys[order, 1])
    first = np.empty(len(keys), np.int64)
    first[order] = np.repeat(order[starts], np.diff(starts, append=len(keys)))
    return first
