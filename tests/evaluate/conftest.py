"""A tiny model in a folder, an engine that serves it, and files of items in their native forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import train
from tests.corpus.dedup_recipes import write_crawl
from tests.tokenizer.conftest import document

torch.set_num_threads(1)
SHAPE = ModelConfig(2, 64, 4, 2, 16, 96, 900, 512, init_std=0.2)
SERVE = Serve(slots=4, threads=1, prefill_tokens=64)


@pytest.fixture(scope="session")
def tokenizer() -> SentencePiece:
    return SentencePiece(train([document(seed) for seed in range(400)], 900))


@pytest.fixture(scope="session")
def folder(tokenizer: SentencePiece, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    path = tmp_path_factory.mktemp("models") / "model"
    hugging_face.save_model(llama.build(SHAPE, 1), SHAPE, str(path), dtype=torch.float32)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[TorchEngine]:
    opened = TorchEngine.open(str(folder), SERVE)
    yield opened
    opened.close()


def lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def exam_rows(
    questions: int = 6, subjects: tuple[str, ...] = ("anatomy", "arts"), shots: int = 5
) -> list[dict]:
    """Rows as CMMLU's in one file: the right answer of question n is the n-th letter, over and over."""
    return [
        {
            "subject": subject, "split": split, "question": f"{subject}的{split}第{n}题是什么？",
            "A": f"甲{n}", "B": f"乙{n}", "C": f"丙{n}", "D": f"丁{n}", "answer": "ABCD"[n % 4],
        }
        for subject in subjects
        for split, count in (("dev", shots), ("test", questions))
        for n in range(count)
    ]  # fmt: skip


def seeing(tmp_path: Path, exam: str) -> dict[str, Any]:
    """The parts `data` and `passes` of a recipe whose corpus holds the first three of the questions of
    `exam`."""
    asked = [row for row in exam_rows() if row["split"] == "test"]
    pages = [
        f"复习题。{row['question']}A.{row['A']}B.{row['B']}C.{row['C']}D.{row['D']}" for row in asked[:3]
    ]
    crawl = write_crawl(tmp_path / "crawl", [[*pages, "没有题目的一页，说的是别的事情。"]])
    sets = [
        {"name": "whole", "path": exam, "fields": ["question", "A", "B", "C", "D"]},
        {"name": "asked", "path": exam, "fields": ["question"]},
    ]
    bounds = {"ngram_chars": 6, "max_items": 99, "min_overlap": 1.0, "action": "cut"}
    return {
        "data": {"inputs": [{"use": "jsonl", "path": f"{crawl}/*.jsonl"}], "max_error_share": 0},
        "passes": [{"use": "decontaminate", "sets": sets} | bounds],
    }


@pytest.fixture
def exam(tmp_path: Path) -> str:
    return lines(tmp_path / "cmmlu.jsonl", exam_rows())


@pytest.fixture
def sums(tmp_path: Path) -> str:
    rows = [{"question": f"{n}加{n}等于几？", "answer": f"{n}+{n}={2 * n}\n#### {2 * n}"} for n in range(8)]
    return lines(tmp_path / "gsm8k.jsonl", rows)
