"""lm-eval's `local-completions` against the API gives what the model itself gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.inference import tiny_engines
from tests.serving.apps import MODEL, Client
from tests.serving.conftest import Start

PAIRS = [
    ("春天到了", "花开得很好"),
    ("臺灣的鐵路從", "這裡"),
    ("我们去山里走了一天", "🎏"),
    ("return self", " import None"),
    ("", "水也清风也轻"),
]


def harness(client: Client, folder: Path, **options: object) -> LocalCompletionsAPI:
    base = str(client.http.base_url).rstrip("/") + "/v1/completions"
    return LocalCompletionsAPI(
        model=MODEL,
        base_url=base,
        tokenizer=str(folder),
        tokenizer_backend="huggingface",
        max_length=128,
        **options,
    )


@pytest.fixture
def folder(tokenizer: SentencePiece, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    tokenizer.save(str(path))
    (path / "config.json").write_text('{"model_type": "llama"}')
    return path


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 4}, {"batch_size": 2, "num_concurrent": 2}]
)
def test_likelihoods_are_those_of_the_model(
    start: Start, tokenizer: SentencePiece, folder: Path, options: dict
) -> None:
    shape = replace(tiny_engines.SHAPE, vocab_size=tokenizer.vocab_size)
    with tiny_engines.engine(shape) as engine:
        lm = harness(start(engine), folder, **options)
        asked = [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(PAIRS)]
        found = lm.loglikelihood(asked, disable_tqdm=True)
    for (context, continuation), (logprob, greedy) in zip(PAIRS, found, strict=True):
        before, all_of_it = (
            tokenizer.encode([text])[0].tolist() for text in (context, context + continuation)
        )
        all_of_it = [
            *before,
            *all_of_it[len(before) :],
        ]  # as lm-eval cuts, also where a token stands across the cut
        before, all_of_it = (
            (before, all_of_it) if before else ([tokenizer.bos_id], [tokenizer.bos_id, *all_of_it])
        )
        said = tiny_engines.expected_logprobs(all_of_it, shape)
        wanted = [said[at - 1, all_of_it[at]].item() for at in range(len(before), len(all_of_it))]
        assert logprob == pytest.approx(sum(wanted), abs=1e-3)
        assert greedy == all(
            said[at - 1].argmax() == all_of_it[at] for at in range(len(before), len(all_of_it))
        )


def test_generation_is_that_of_the_model(start: Start, tokenizer: SentencePiece, folder: Path) -> None:
    shape = replace(tiny_engines.SHAPE, vocab_size=tokenizer.vocab_size)
    with tiny_engines.engine(shape) as engine:
        lm = harness(start(engine), folder, batch_size=2)
        asked = [
            Instance("generate_until", {}, (context, {"until": ["\n\n"], "max_gen_toks": 12}), at)
            for at, (context, _) in enumerate(PAIRS[:4])
        ]
        found = lm.generate_until(asked, disable_tqdm=True)
    for (context, _), text in zip(PAIRS, found, strict=False):
        said = tiny_engines.expected(tokenizer.encode([context])[0].tolist(), 12, shape)
        ends = {tokenizer.eos_id, tokenizer.specials["<|end|>"]}
        until = next((at for at, id_ in enumerate(said) if id_ in ends), len(said))
        plain = [
            id_ for id_ in said[:until] if id_ not in tokenizer.specials.values()
        ]  # SentencePiece writes unk as ⁇
        wanted = tokenizer.decode(plain).split("\n\n")[0]
        assert text.replace("\ufffd", "") == wanted.replace(
            "\ufffd", ""
        )  # decoders differ in how many stand for no UTF-8
