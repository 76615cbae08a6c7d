"""A tokenizer trained in a second on made-up text with all the trouble of real text, and its folder."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train

PROSE = "春天到了花开得很好我们去山里走了一天水也清风也轻他说明年再来孩子们笑着跑过桥"
HANT = "臺灣的鐵路從這裡開始經過許多車站後來又與公路相連"
WORDS = ["the", "model", "trains", "on", "shards", "and", "def", "return", "import", "self", "None", "print"]
VOCABULARY = 1200


def document(seed: int) -> str:
    """Prose, Traditional prose, code with indentation, numbers and rules of dashes, as the seed has it."""
    draw = random.Random(seed)
    prose = "".join(draw.choices(PROSE if draw.random() < 0.7 else HANT, k=draw.randrange(20, 200)))
    code = "\n".join(" " * 4 * draw.randrange(5) + " ".join(draw.choices(WORDS, k=5)) for _ in range(5))
    number = f"{draw.randrange(10**8)}年{draw.randrange(100)}月，".replace(
        "0", "０" if draw.random() < 0.2 else "0"
    )
    return f"{prose}。\n{number}{'-' * draw.randrange(20)}\n\n{code}\n\t哈{'哈' * draw.randrange(9)}！"


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return [document(seed) for seed in range(1200)]


@pytest.fixture(scope="session")
def trained(documents: list[str]) -> SentencePiece:
    return SentencePiece(train(documents, VOCABULARY))


@pytest.fixture(scope="session")
def folder(trained: SentencePiece, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    trained.save(str(path))
    return path
