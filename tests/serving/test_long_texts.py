"""Long texts hold nobody up: tokenizing and writing a megabyte leaves the event loop free."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.serving.api.app import create
from ctllm_ray.serving.api.token_names import TokenNames
from ctllm_ray.serving.api.tokenize import SLICE_IDS, format_tokens
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import MODEL, served

RARE = "".join(chr(0x4E00 + at * 7919 % 20_000) for at in range(330_000))  # 1 MB; nearly each byte is an id
WAIT_S = (
    0.25  # of its thread's CPU, whatever else the machine does; 5 to 60 ms when this was written, 3 s before
)


async def measure_lag(app: Any, path: str, body: dict[str, Any]) -> tuple[httpx.Response, float]:
    """An answer, and the longest time that the event loop computed without a turn for others."""
    worst, done = 0.0, False

    async def beat() -> None:
        nonlocal worst
        while not done:
            began = time.thread_time()
            await asyncio.sleep(0.001)
            worst = max(worst, time.thread_time() - began)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        content = json.dumps({"model": MODEL, **body}, ensure_ascii=False).encode()
        beating = asyncio.create_task(beat())
        answer = await client.post(path, content=content, headers={"Content-Type": "application/json"})
        done = True
        await beating
    return answer, worst


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"prompt": RARE}),
        ("/tokenize", {"messages": [{"role": "user", "content": RARE}]}),
        ("/v1/completions", {"prompt": RARE}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": RARE}]}),
        ("/v1/completions", {"prompt": ["一"] * 200_000}),
        ("/v1/completions", {"prompt": [5, *["一"] * 200_000]}),
        ("/v1/completions", {"prompt": "一", **{f"x{at}": 1 for at in range(50_000)}}),
    ],
)
def test_a_megabyte_holds_no_other_request_up(
    tokenizer: SentencePiece, tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    app = create(
        served(ScriptedEngine(context_tokens=4096), tokenizer, tmp_path, serve=Serve(max_body_kb=4096))
    )
    answer, worst = asyncio.run(measure_lag(app, path, body))
    assert answer.status_code == (200 if path == "/tokenize" else 400)
    assert worst < WAIT_S


@pytest.mark.parametrize("count", [0, 1, SLICE_IDS, SLICE_IDS + 1])
def test_slices_are_one_json_object(tokenizer: SentencePiece, count: int) -> None:
    ids, pieces = [at % tokenizer.vocab_size for at in range(count)], TokenNames(tokenizer)
    written = json.loads(format_tokens(pieces, ids, 64))
    names = [pieces.name(id_) for id_ in ids]
    assert written == {"count": count, "max_model_len": 64, "tokens": ids, "token_strs": names}
