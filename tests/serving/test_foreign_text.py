"""A foreign Llama folder behind the API: the greedy text of transformers, whatever its tokenizer puts before
a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.torch_engine import TorchEngine
from ctllm_ray.serving.api import model_card
from ctllm_ray.tokenizer.tokenizer import load_tokenizer
from tests.serving.apps import MODEL, running, served
from tests.tokenizer.conftest import document
from tests.tokenizer.kinds import KINDS, TEXTS

TOKENS = 12
PROMPTS = [text for text in TEXTS if text == text.lstrip()]


@pytest.fixture(
    scope="module", params=["llama2", "llama3", "yi", "glm", "byte_level_without_post_processor", "qwen"]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with random weights and the tokenizer of a well-known kind, as transformers saves it."""
    texts = [*(document(seed) for seed in range(100)), *TEXTS * 5]
    made = KINDS[request.param](tmp_path_factory.mktemp("foreign") / request.param, texts)
    theirs = transformers.AutoTokenizer.from_pretrained(made)
    torch.manual_seed(
        11
    )  # no answer holds bytes that are no UTF-8, of which transformers writes one sign for each
    shape = LlamaConfig(
        vocab_size=len(theirs), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
        bos_token_id=theirs.bos_token_id, eos_token_id=theirs.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    tokenizer, engine = load_tokenizer(str(folder)), TorchEngine.open(str(folder), Serve(slots=2, threads=1))
    told = model_card.read_card(str(folder), MODEL, tokenizer, engine.context_tokens)
    with running(served(engine, tokenizer, tmp_path_factory.mktemp("served"), card=told)) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    engine.close()


def test_greedy_text_is_that_of_transformers(folder: Path, client: openai.OpenAI) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    for prompt in PROMPTS:
        given = tokenizer(prompt, return_tensors="pt").input_ids
        wanted = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=TOKENS, do_sample=False
        )
        said = client.completions.create(model=MODEL, prompt=prompt, max_tokens=TOKENS, temperature=0)
        text = tokenizer.decode(wanted[0], skip_special_tokens=True)
        assert said.usage is not None
        assert said.usage.prompt_tokens == given.shape[1]
        assert prompt + said.choices[0].text == text


def test_tokenize_gives_the_ids_of_transformers(folder: Path, client: openai.OpenAI) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    root = str(client.base_url).removesuffix("v1/")
    for prompt in PROMPTS:
        for specials in (True, False):
            asked = {"prompt": prompt, "add_special_tokens": specials}
            came = client.post(f"{root}tokenize", body=asked, cast_to=object)
            assert came["tokens"] == tokenizer(prompt, add_special_tokens=specials).input_ids  # type: ignore[index]
