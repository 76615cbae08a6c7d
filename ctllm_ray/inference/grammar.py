"""Turns JSON schemas into masks over ids with llguidance.
A mask takes 0.05 ms for most states of most schemas.

An id is allowed when its bytes may come next, whatever the tokenizer would have made of the whole text. A
schema is compiled once (milliseconds, seconds for the worst) and copied for each answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

import llguidance
import numpy as np

from ctllm_ray.base.errors import InputError
from ctllm_ray.inference.stream import spellings
from ctllm_ray.tokenizer.tokenizer import Tokenizer

#: Number of compiled schemas to keep.
_KEPT = 64


class _Pieces:
    """A tokenizer with the interface that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tokens = [*spellings(tokenizer), *[b""] * vocab_size][:vocab_size]
        self.special_token_ids = sorted(tokenizer.specials.values())
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        for name, id_ in tokenizer.specials.items():
            self.tokens[id_] = name.encode()
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode([text.decode("utf-8", "replace")])[0].tolist()


class GrammarCompiler:
    """Makes matchers of schemas for one tokenizer. `vocab_size` is the model's,
    which may include unused rows."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        wrapped = llguidance.TokenizerWrapper(_Pieces(tokenizer, vocab_size))
        self._tokenizer = llguidance.LLTokenizer(wrapped, n_vocab=vocab_size, eos_token=tokenizer.eos_id)
        self._vocab_size = vocab_size
        self._compiled = lru_cache(_KEPT)(self._compile)

    def matcher(self, schema: str, stop_ids: Sequence[int] = ()) -> GrammarMatcher:
        """A matcher at the start of an answer. Raises `InputError` if the schema
        is invalid or not supported."""
        return GrammarMatcher(self._compiled(schema).deep_copy(), self._vocab_size, stop_ids)

    def _compile(self, schema: str) -> llguidance.LLMatcher:
        try:
            # No white space between parts: a small model would write spaces until its tokens are used up.
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.loads(schema), defaults={"whitespace_flexible": False}
            )
        except (ValueError, TypeError) as error:
            raise _unusable(str(error)) from None
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise _unusable(matcher.get_error())
        first = matcher.deep_copy()
        first.compute_bitmask()
        if first.is_error():
            raise _unusable("no text can follow it")
        return matcher


def _unusable(why: str) -> InputError:
    return InputError(
        f"the JSON schema cannot be used: {_plain(why)}", remedy="simplify the schema, or correct it"
    )


def _plain(error: str) -> str:
    """The message of llguidance on one line, without the state of its parser."""
    return " ".join(error.partition("<state>")[0].split())[:300] or "llguidance gives no reason"


class GrammarMatcher:
    """The position of one answer in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int, stop_ids: Sequence[int]) -> None:
        self._matcher, self._vocab_size = matcher, vocab_size
        self._stop_ids = list(stop_ids)

    @property
    def ended(self) -> bool:
        """True if nothing can follow."""
        return self._matcher.is_stopped()

    @property
    def error(self) -> str:
        """Why the grammar cannot be followed further (llguidance limits its work); empty if it can."""
        return _plain(self._matcher.get_error()) if self._matcher.is_error() else ""

    def allowed_ids(self) -> np.ndarray:
        """True for each id that may come next, bool [V]. If the text is complete, the
        request's stop ids may come too."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=self._vocab_size).astype(bool)
        if self._matcher.is_accepting():
            allowed[self._stop_ids] = True
        return allowed

    def accept(self, id_: int) -> None:
        """Advances by one id."""
        if id_ not in self._stop_ids:
            self._matcher.consume_token(id_)
