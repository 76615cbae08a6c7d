"""Foreign tokenizers in evaluation: contexts begin as the tokenizer itself begins a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from transformers import AutoTokenizer

from ctllm_ray.evaluate.harness import EngineLM
from ctllm_ray.tokenizer import tokenizer as tokenizers
from tests.tokenizer.conftest import document
from tests.tokenizer.kinds import KINDS, TEXTS


@pytest.mark.parametrize("kind", ["llama2", "qwen", "yi", "glm", "ends_with_eos"])
def test_a_text_begins_with_what_the_tokenizer_itself_puts_and_goes_on(kind: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path / kind, [*(document(seed) for seed in range(50)), *TEXTS * 5])
    model, theirs = (
        EngineLM(cast(Any, None), tokenizers.load_tokenizer(str(folder))),
        AutoTokenizer.from_pretrained(folder),
    )
    for text in (text for text in TEXTS if text == text.lstrip()):
        wanted = theirs(text).input_ids
        ends = theirs(text, add_special_tokens=False).input_ids
        assert model.tok_encode(text) == wanted[: len(wanted) - (kind == "ends_with_eos")]
        assert model.tok_encode(text, add_special_tokens=False) == ends
