"""A model behind an OpenAI-compatible API as a model under evaluation: prompts as ids, scores by `echo`.

Chat endpoints give no log-probabilities of a prompt, so everything goes to `/completions`. The tokenizer must
be the served one. If the server has `/tokenize` (ours and vLLM have), this is checked before the first
request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctllm_ray.base.errors import EngineFailed, InputError
from ctllm_ray.evaluate.models.model_under_test import Continuation, cut_at_stop
from ctllm_ray.evaluate.models.openai_client import Client
from ctllm_ray.inference.engine import Token
from ctllm_ray.tokenizer.tokenizer import Tokenizer

PROBE = "今天天气很好，the weather is fine: 1 + 1 = 2。\n"
MOST_STOPS = 4  # maximum in OpenAI's API


@dataclass(frozen=True)
class ServedModel:
    """A served model, as its API describes it."""

    id: str
    context_tokens: int  # 0: unknown
    lineage: dict[str, Any]
    sha256: str = ""  # over everything that affects answers; empty: unknown


async def find_served_model(client: Client) -> ServedModel:
    """The first model that the API serves. Raises `InputError` if there is none."""
    models = (await client.get("/models")).get("data") or []
    if not models:
        raise InputError("the API serves no model", where=client.url, remedy="check the URL: it ends in /v1")
    first = models[0]
    context = first.get("context_tokens") or first.get("max_model_len") or 0  # in our API; in vLLM's
    return ServedModel(
        str(first["id"]), int(context), first.get("lineage") or {}, str(first.get("model_sha256") or "")
    )


async def check_tokenizer(client: Client, model: str, tokenizer: Tokenizer) -> None:
    """Raises `InputError` if the server's ids of a text differ from this tokenizer's."""
    root = client.url.removesuffix("/v1")
    try:
        response = await client.post(
            f"{root}/tokenize", {"model": model, "prompt": PROBE, "add_special_tokens": False}
        )
    except InputError:
        return  # the API has no such endpoint
    if response.get("tokens") != tokenizer.encode([PROBE])[0].tolist():
        remedy = "give the served model's folder: evaluate.model=PATH"
        raise InputError(
            "the server uses another tokenizer than evaluate.model", where=client.url, remedy=remedy
        )


class OpenAIModel:
    """The served model. Each id of `others` takes its own request: the API cannot score several at once."""

    def __init__(self, client: Client, model: str, context_tokens: int, tokenizer: Tokenizer) -> None:
        self.context_tokens = context_tokens
        self._client, self._model, self._tokenizer = client, model, tokenizer

    async def logprobs(self, ids: Sequence[int], start: int, others: Sequence[int]) -> list[Token]:
        """Like `ModelUnderTest.logprobs`. If the most likely last id is not among the requested ones, it is -1."""
        tokens = await self._score_ids(ids, start)
        lasts = [tokens[-1], *[(await self._score_ids([*ids[:-1], other], start))[-1] for other in others]]
        likeliest = next((last.top[0] for last in lasts if last.top[0][0] >= 0), lasts[0].top[0])
        scores = ((last.id, last.logprob) for last in lasts[1:])
        return [*tokens[:-1], Token(lasts[0].id, lasts[0].logprob, (likeliest, *scores))]

    async def _score_ids(self, ids: Sequence[int], start: int) -> list[Token]:
        body = {"model": self._model, "prompt": list(ids), "max_tokens": 1, "echo": True, "logprobs": 1}
        said = (await self._client.post("/completions", body | {"temperature": 0}))["choices"][0].get(
            "logprobs"
        )
        if not said or len(said["token_logprobs"]) < len(ids):
            raise InputError(
                "the API gives no log-probabilities of prompts",
                where=self._client.url,
                remedy="evaluate the model's folder in process, or serve it with `ctllm serve` or vLLM",
            )
        places = zip(ids, said["token_logprobs"], said["top_logprobs"], strict=False)
        return [_token(*place) for place in list(places)[start:]]

    async def generate(self, ids: Sequence[int], wanted: Continuation) -> str:
        """Like `ModelUnderTest.generate`."""
        body = {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": wanted.max_tokens,
            "temperature": wanted.temperature,
            "top_p": wanted.top_p,
            "seed": wanted.seed,
        }
        stops = {"stop": list(wanted.until)[:MOST_STOPS]} if wanted.until else {}
        answer = await self._client.post("/completions", body | stops)
        try:
            return cut_at_stop(str(answer["choices"][0]["text"]), wanted.until)
        except (KeyError, IndexError, TypeError):
            raise EngineFailed(
                "the API's response has no text", where=self._client.url, remedy="ask again"
            ) from None


def _token(id_: int, logprob: float, top: dict[str, float] | None) -> Token:
    """One position. The API names the most likely id by text only, so it is found by its log-probability."""
    likeliest = max((top or {}).values(), default=logprob)
    return Token(id_, logprob, ((id_ if logprob >= likeliest else -1, likeliest),))
