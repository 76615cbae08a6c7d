"""vLLM as an engine through Ray Serve LLM, with the methods of our replicas, behind our own ingress.

Ids go in and ids come out of its completions API (`return_token_ids`, `logprob_token_ids`), so that keys,
limits, chat templates, text and errors stay ours and are the same with every engine. Ray Serve LLM does not
import where vLLM is not installed (`pip install 'ctllm-ray[vllm]'`, on a machine with CUDA), so it is
imported on the replica and where the deployment is built, in this file alone.

Two things that the torch engine has are not here: after the loss of a replica the draws of a seed are others,
and penalties have forgotten what was already answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ctllm_ray.base.errors import CtllmError, EngineFailed, InputError
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.inference.engine import EngineLoad, Finish, Output, Sampling, Token
from ctllm_ray.serving.ray.model_replaced import RefusingEngine, open_checked
from ctllm_ray.serving.ray.remote import replica_id

_ID = "token_id:"  # prefix of token names with `return_tokens_as_token_ids`
_DATA, _DONE = "data: ", "[DONE]"
MODEL = "model"  # model name between this file and vLLM; the API's name is on the card
AUTO_PRECISION = "of the folder"
MAX_LOGPROBS = 20  # the maximum that the API lets a client request
_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length"}

#: A request to /v1/completions as plain values, and its response: lines of a stream, or one whole answer.
Completions = Callable[[dict[str, Any]], AsyncGenerator[Any]]


class VllmEngine:
    """An `Engine` over vLLM's completions."""

    def __init__(self, completions: Completions, slots: int, context_tokens: int, vocab_size: int) -> None:
        self._completions, self._slots = completions, slots
        self.context_tokens, self.vocab_size = context_tokens, vocab_size
        self._tokens: dict[object, int] = {}  # of each running request
        self._since = 0.0  # time of the last output, or of the first request after idling

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> AsyncGenerator[Output]:
        """As `Engine.generate`."""
        self._check(ids, self.context_tokens - 1)
        room = min(sampling.max_tokens, self.context_tokens - len(ids))
        if room < 1:
            raise InputError(
                "the request asks for less than one token",
                where="max_tokens",
                remedy="set max_tokens to at least 1",
            )
        key = self._begin(len(ids))
        stream = self._completions(_make_request(ids, sampling, room))
        try:
            async for chunk in _chunks(stream):
                for choice in chunk["choices"]:
                    tokens, finish = (
                        _tokens(choice, sampling.top_logprobs),
                        _finish(choice.get("finish_reason")),
                    )
                    self._came(key, len(tokens))
                    if tokens or finish:
                        yield Output(tokens, finish)
        finally:
            self._tokens.pop(key)
            await stream.aclose()

    async def logprobs(
        self, ids: Sequence[int], start: int = 1, top: int = 0, others: Sequence[int] = ()
    ) -> list[Token]:
        """Like `Engine.logprobs`: the last id and `others` are scored as an
        answer, the rest as the prompt."""
        self._check([*ids, *others], self.context_tokens + len(others))
        if start < 1:
            raise InputError(
                f"log-probabilities cannot start at id {start}: the first id has no context",
                where="start",
                remedy="start at 1 or later",
            )
        if start >= len(ids):
            return []
        *before, last = ids
        key = self._begin(len(ids))
        try:
            likely = await self._score_ids(before, top)
            named = await self._logprobs_of(before, [last, *others])
        finally:
            self._tokens.pop(key)
        tokens = [_of_prompt(likely["prompt_logprobs"][at], ids[at], top) for at in range(start, len(before))]
        tops = _falling(_ids(likely["logprobs"]["top_logprobs"][0]), top)
        return [*tokens, Token(last, named[last], (*tops, *((other, named[other]) for other in others)))]

    async def load(self) -> EngineLoad:
        """Like `Engine.load`, as far as it is known here: vLLM does not report its cache."""
        busy = len(self._tokens)
        running = min(busy, self._slots)
        age_s = time.monotonic() - self._since if busy else 0.0
        used, all_ = sum(self._tokens.values()), self._slots * self.context_tokens
        return EngineLoad(running, busy - running, self._slots, min(used, all_), all_, age_s)

    async def _score_ids(self, ids: Sequence[int], top: int) -> dict[str, Any]:
        """One answer of one token, with the most likely ids at its position and at
        all positions of the prompt."""
        body = _make_request(ids, Sampling(1, temperature=0.0, top_logprobs=top), 1) | {
            "prompt_logprobs": top
        }
        return await self._whole(body)

    async def _logprobs_of(self, ids: Sequence[int], named: Sequence[int]) -> dict[int, float]:
        """The log-probability of each given id as the next one."""
        body = _make_request(ids, Sampling(1, temperature=0.0), 1) | {"logprob_token_ids": sorted(set(named))}
        choice = await self._whole(body)
        return _ids(choice["logprobs"]["top_logprobs"][0])

    async def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """The single choice of an answer that is not streamed."""
        body = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
        async for answer in self._completions(body):
            plain = answer if isinstance(answer, Mapping) else answer.model_dump()
            if plain.get("error"):
                raise _error(plain["error"])
            return dict(plain["choices"][0])
        raise EngineFailed("vLLM ended without an answer", remedy="ask again")

    def _check(self, ids: Sequence[int], most: int) -> None:
        if not 0 < len(ids) <= most:
            what = (
                f"the prompt has {len(ids)} tokens; prompt and answer must fit the context "
                f"of {self.context_tokens} tokens"
            )
            raise InputError(
                what, where="prompt", remedy="send at least one token and fewer than the context"
            )
        if not 0 <= min(ids) <= max(ids) < self.vocab_size:
            what = f"an id is not in the vocabulary of {self.vocab_size} ids"
            raise InputError(what, where="prompt", remedy="encode with the model's own tokenizer")

    def _begin(self, tokens: int) -> object:
        key = object()
        if not self._tokens:
            self._since = time.monotonic()
        self._tokens[key] = tokens
        return key

    def _came(self, key: object, tokens: int) -> None:
        self._tokens[key] += tokens
        self._since = time.monotonic()


def _make_request(ids: Sequence[int], sampling: Sampling, room: int) -> dict[str, Any]:
    """A streamed request for `room` ids, with every value set: vLLM would read missing
    ones from the model's folder."""
    body: dict[str, Any] = {
        "prompt": list(ids),
        "max_tokens": room,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop_token_ids": sorted(sampling.stop_ids),
        "ignore_eos": True,  # this file decides what ends an answer
        "logprobs": sampling.top_logprobs,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "stream": True,
    }
    return body | ({"structured_outputs": {"json": sampling.grammar}} if sampling.grammar else {})


async def _chunks(stream: AsyncGenerator[Any]) -> AsyncGenerator[dict[str, Any]]:
    """The events of a stream. Raises the error that vLLM sends instead of one."""
    async for item in stream:
        for line in item if isinstance(item, list) else [item]:  # Ray Serve LLM passes several at a time
            if not isinstance(line, str):
                raise _error(line.model_dump()["error"])
            data = line.removeprefix(_DATA).strip()
            if data and data != _DONE:
                chunk = json.loads(data)
                if "error" in chunk:
                    raise _error(chunk["error"])
                yield chunk


def _tokens(choice: Mapping[str, Any], top: int) -> tuple[Token, ...]:
    """The tokens of a part of an answer, each with the most likely ones."""
    logprobs = choice.get("logprobs") or {"token_logprobs": [], "top_logprobs": []}
    columns = choice.get("token_ids") or [], logprobs["token_logprobs"], logprobs["top_logprobs"]
    return tuple(Token(id_, own, _falling(_ids(tops), top)) for id_, own, tops in zip(*columns, strict=True))


def _of_prompt(by_id: Mapping[Any, Mapping[str, Any]], id_: int, top: int) -> Token:
    """A token of a prompt, from log-probabilities that contain it and the most likely ones."""
    logprobs = {int(other): entry["logprob"] for other, entry in by_id.items()}
    return Token(id_, logprobs[id_], _falling(logprobs, top))


def _ids(named: Mapping[str, float]) -> dict[int, float]:
    """Log-probabilities by id: vLLM returns the chosen id and the most likely ones."""
    return {int(name.removeprefix(_ID)): logprob for name, logprob in named.items()}


def _falling(logprobs: Mapping[int, float], most: int) -> tuple[tuple[int, float], ...]:
    """Sorted by probability, highest first."""
    return tuple(sorted(logprobs.items(), key=lambda each: -each[1])[:most])


def _finish(reason: str | None) -> Finish:
    if reason is None or reason in _FINISH:
        return _FINISH.get(reason or "", "")
    raise EngineFailed(f"vLLM aborted the answer: {reason}", remedy="ask again")


def _error(event: Mapping[str, Any]) -> CtllmError:
    """The error that vLLM reported: of the request, or of the engine."""
    what = str(event.get("message") or event)[:500]
    if event.get("code") == 400:
        return InputError(f"vLLM rejected the request: {what}", where="prompt", remedy="correct the request")
    return EngineFailed(f"vLLM failed: {what}", remedy="ask again")


def config(serve: Serve, folder: str, context_tokens: int) -> dict[str, Any]:
    """The values of Ray Serve LLM's `LLMConfig`."""
    arguments: dict[str, Any] = {
        "max_model_len": context_tokens,
        "max_num_seqs": serve.slots,
        "tensor_parallel_size": max(1, int(serve.gpus)),
        "dtype": {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}[serve.precision],
        "enable_prefix_caching": True,
        "max_logprobs": MAX_LOGPROBS,
        "generation_config": "vllm",  # sampling settings never come from the model's folder
    }
    return {
        "model_loading_config": {"model_id": MODEL, "model_source": folder},
        "engine_kwargs": arguments,
        "deployment_config": {"ray_actor_options": {"num_cpus": serve.cpus}},
        "experimental_configs": {"stream_batching_interval_ms": 0},  # by default, tokens are held for 50 ms
        "log_engine_metrics": True,
    }


def bind_engine(serve: Serve, folder: str, facts: Mapping[str, Any], options: dict[str, Any]) -> Any:
    """The bound deployment, with the options of our own engine; of `facts`, sha256, context_tokens and
    vocab_size are read. Raises `InputError` where vLLM is not installed."""
    try:
        from ray.serve import llm
    except ImportError as error:
        what = f"vLLM cannot be imported: {error}"
        remedy = "install ctllm-ray[vllm] on the nodes, or set serve.engine=torch"
        raise InputError(what, where="serve.engine", remedy=remedy) from error
    limits = {"slots": serve.slots, **{name: facts[name] for name in ("context_tokens", "vocab_size")}}
    return llm.build_llm_deployment(
        llm.LLMConfig(**config(serve, folder, facts["context_tokens"])),
        name_prefix="",
        bind_kwargs={"folder": folder, "sha256": facts["sha256"], **limits},
        override_serve_options=options,
        deployment_cls=replica(llm.LLMServer),
    )


def replica(server: Any) -> Any:
    """Ray Serve LLM's server with the methods of `TorchReplica`."""

    class VllmReplica(server):
        """A replica of vLLM."""

        async def __init__(self, llm_config: Any, folder: str, sha256: str, **limits: int) -> None:  # type: ignore[misc]
            """Ray Serve awaits it."""
            self._ours = open_checked(
                folder, sha256, replica_id(), lambda: VllmEngine(self._stream_answer, **limits)
            )
            await super().__init__(llm_config)

        async def start(self) -> None:
            """Starts vLLM; Ray Serve LLM calls it."""
            if not isinstance(self._ours, RefusingEngine):
                await super().start()

        async def check_health(self) -> None:
            """Raises if vLLM died, or the replica has refused long enough."""
            if isinstance(self._ours, RefusingEngine):
                self._ours.check_health()
            await super().check_health()

        async def _stream_answer(self, plain: dict[str, Any]) -> AsyncGenerator[Any]:
            from ray.serve.llm.openai_api_models import CompletionRequest

            async for item in await self.completions(CompletionRequest(model=MODEL, **plain)):
                yield item

        async def generate(self, ids: list[int], sampling: Sampling) -> AsyncGenerator[Output]:
            """As `Engine.generate`."""
            async with aclosing(self._ours.generate(ids, sampling)) as outputs:
                async for output in outputs:
                    yield output

        async def logprobs(self, ids: list[int], start: int, top: int, others: list[int]) -> list[Token]:
            """As `Engine.logprobs`."""
            return await self._ours.logprobs(ids, start, top, others)

        async def load(self) -> EngineLoad:
            """As `Engine.load`."""
            return await self._ours.load()

    return VllmReplica
