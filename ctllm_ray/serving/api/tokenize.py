"""Writes the response of /tokenize in slices: a megabyte
of text is a million ids, and other requests must not wait.

Work in a thread lets the event loop go on every few milliseconds,
but one call into C does not: a slice takes about one millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ctllm_ray.serving.api.token_names import TokenNames

SLICE_IDS = 4096


def format_tokens(pieces: TokenNames, ids: Sequence[int], context_tokens: int) -> bytes:
    """`TokenizeResponse` as JSON."""
    return b"".join(
        [
            b'{"count":%d,"max_model_len":%d,"tokens":[' % (len(ids), context_tokens),
            b",".join(_inner(part) for part in _slices(ids)),
            b'],"token_strs":[',
            b",".join(_inner([pieces.name(id_) for id_ in part]) for part in _slices(ids)),
            b"]}",
        ]
    )


def _slices(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), SLICE_IDS):
        yield ids[start : start + SLICE_IDS]


def _inner(values: Sequence[int] | Sequence[str]) -> bytes:
    """A list as JSON without its brackets."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))[1:-1].encode()
