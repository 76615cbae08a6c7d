"""Answers under a JSON schema are JSON of that schema, whatever the model would rather say."""

from __future__ import annotations

import json
import random

import jsonschema
import numpy as np
import pytest
import torch

from ctllm_ray.base.errors import InputError
from ctllm_ray.inference.engine import Sampling
from ctllm_ray.inference.grammar import GrammarCompiler
from ctllm_ray.inference.sampling import Chooser, choose
from ctllm_ray.inference.stream import TextStream
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train
from tests.tokenizer.conftest import document

SCHEMA = {
    "type": "object",
    "properties": {
        "姓名": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["甲", "乙"]}, "maxItems": 3},
    },
    "required": ["姓名", "age", "tags"],
    "additionalProperties": False,
}
ROWS = 1300  # the model has more rows than there are pieces


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    return SentencePiece(train([document(seed) for seed in range(1200)], 1200))


@pytest.fixture(scope="module")
def grammars(tokenizer: SentencePiece) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, ROWS)


def answer(
    grammars: GrammarCompiler, tokenizer: SentencePiece, schema: object, seed: int, stop_ids: list[int]
) -> str:
    """What a model that knows nothing says under a schema."""
    matcher = grammars.matcher(json.dumps(schema), stop_ids)
    chooser = Chooser(Sampling(400, seed=seed), [0], matcher)
    draw, ids = torch.Generator().manual_seed(seed), []
    while not matcher.ended and len(ids) < 400:
        [token] = choose(torch.randn(1, ROWS, generator=draw) * 3, [chooser])
        if token.id in stop_ids:
            break
        ids.append(token.id)
    assert not matcher.error
    stream = TextStream(tokenizer)
    return stream.push(ids) + stream.finish()


@pytest.mark.parametrize("seed", range(12))
def test_random_logits_under_a_schema_give_json_of_the_schema(
    grammars: GrammarCompiler, tokenizer: SentencePiece, seed: int
) -> None:
    found = answer(grammars, tokenizer, SCHEMA, seed, [tokenizer.eos_id])
    jsonschema.validate(json.loads(found), SCHEMA)


def test_a_stop_id_is_allowed_where_the_text_is_complete_and_nowhere_else(
    grammars: GrammarCompiler, tokenizer: SentencePiece
) -> None:
    stop = tokenizer.eos_id
    matcher = grammars.matcher('{"type": "integer"}', [stop])
    assert not matcher.allowed_ids()[stop]
    matcher.accept(tokenizer.encode(["7"])[0].tolist()[-1])
    assert matcher.allowed_ids()[stop]
    assert not matcher.allowed_ids()[tokenizer.encode(["a"])[0].tolist()[-1]]


def test_rows_without_a_piece_and_specials_are_never_allowed(
    grammars: GrammarCompiler, tokenizer: SentencePiece
) -> None:
    matcher, draw = grammars.matcher('{"type": "string"}', []), random.Random(0)
    for _ in range(30):
        allowed = np.flatnonzero(matcher.allowed_ids())
        if not len(allowed) or matcher.ended:
            break
        assert allowed.max() < tokenizer.vocab_size
        assert not set(allowed.tolist()) & (set(tokenizer.specials.values()) - {tokenizer.eos_id})
        matcher.accept(draw.choice(allowed.tolist()))


@pytest.mark.parametrize(
    "schema", ["{", "[]", '{"type": "nonsense"}', '"x"', '{"type": "object", "required": 5}']
)
def test_what_is_no_schema_is_an_input_error(grammars: GrammarCompiler, schema: str) -> None:
    with pytest.raises(InputError, match="JSON schema"):
        grammars.matcher(schema)


LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}


@pytest.mark.parametrize("schema", [{"$ref": "#"}, LOOP, {"type": "string", "pattern": "("}, {"not": {}}])
def test_why_a_schema_cannot_be_followed_is_one_plain_line(grammars: GrammarCompiler, schema: object) -> None:
    with pytest.raises(InputError) as error:
        grammars.matcher(json.dumps(schema))
    assert "\n" not in error.value.what
    assert "state" not in error.value.what
    assert len(error.value.what) < 200
