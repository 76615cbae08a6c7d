"""Chooses the next id for each row of logits by the row's
`Sampling`. All rows of a step are processed together.

Shapes: R rows, V vocabulary.

A draw is one random number and the first id at which the summed weights pass it. Each request has its
own generator on the host, so that its numbers depend on its seed alone; what other rows do can move a
draw only by the rounding of logits. top_k, top_p and min_p are each a least weight that an id must
have. So ids of equal weight stay or go together, however ties would be sorted: where the k-th and the
next are equal, top_k keeps both.

On a CPU numpy sorts for top_k and top_p: 0.6 ms for a row of 32,000 weights, where torch needs 2.5.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ctllm_ray.inference.engine import Sampling, Token

#: Lower temperatures count as this one: the most likely id has weight exp(0), all others 0 in fp32.
LEAST_TEMPERATURE = 1e-6


class Matcher(Protocol):
    """The position of an answer in its grammar; implemented in grammar.py."""

    @property
    def ended(self) -> bool:
        """True if nothing can follow."""
        ...

    @property
    def error(self) -> str:
        """Why the grammar cannot be followed further; empty if it can."""
        ...

    def allowed_ids(self) -> np.ndarray:
        """True for each id that may come next: bool [V]."""
        ...

    def accept(self, id_: int) -> None:
        """Advances by one id."""
        ...


class Chooser:
    """The state of one answer beside the logits: its sampling, random numbers and previous ids."""

    def __init__(self, sampling: Sampling, ids: Sequence[int], matcher: Matcher | None = None) -> None:
        self.sampling, self.matcher = sampling, matcher
        self.penalized = (
            sampling.repetition_penalty != 1
            or sampling.presence_penalty != 0
            or sampling.frequency_penalty != 0
        )
        seed = sampling.seed
        self._random = random.Random(None if seed is None else seed % 2**64)  # Python's Random takes -7 for 7
        self._previous = set(ids) if self.penalized else set()
        self._counts: dict[int, int] = {}
        for id_ in ids[
            len(ids) - sampling.answer_prefix_tokens :
        ]:  # the answer continues where another engine stopped
            self.number()
            self.took(id_)

    def number(self) -> float:
        """The next random number in [0, 1)."""
        return self._random.random()

    def took(self, id_: int) -> None:
        """Records the chosen id."""
        if self.penalized:
            self._previous.add(id_)
            self._counts[id_] = self._counts.get(id_, 0) + 1
        if self.matcher is not None:
            self.matcher.accept(id_)

    def penalize(self, logits_V: torch.Tensor) -> None:
        """Changes the logits of previous ids in place."""
        sampling = self.sampling
        previous = torch.tensor(sorted(self._previous), device=logits_V.device)
        result = logits_V[previous]
        logits_V[previous] = torch.where(
            result > 0, result / sampling.repetition_penalty, result * sampling.repetition_penalty
        )
        if self._counts:
            counts = torch.tensor(list(self._counts.items()), device=logits_V.device)
            logits_V[counts[:, 0]] -= sampling.presence_penalty + sampling.frequency_penalty * counts[:, 1]


@torch.inference_mode()
def choose(logits_RV: torch.Tensor, choosers: Sequence[Chooser]) -> list[Token]:
    """The chosen id of each row with the model's log-probabilities. Waits for the GPU once."""
    total_R = logits_RV.logsumexp(1)
    most = max(chooser.sampling.top_logprobs for chooser in choosers)
    top = logits_RV.topk(min(most, logits_RV.shape[1]), dim=1) if most else None
    ids_R = _choose_ids(_adjust_logits(logits_RV, choosers), choosers)
    columns = [ids_R[:, None], logits_RV.gather(1, ids_R[:, None]) - total_R[:, None]]
    if top is not None:
        columns += [top.indices, top.values - total_R[:, None]]
    plain = torch.cat([part.double() for part in columns], dim=1).tolist()
    for chooser, row in zip(choosers, plain, strict=True):
        chooser.took(int(row[0]))
    return [_token(row, chooser.sampling.top_logprobs) for row, chooser in zip(plain, choosers, strict=True)]


@dataclass(frozen=True)
class LogprobQuery:
    """What to report for a row: the log-probability of an id, the most likely ids, and those of `others`."""

    id: int
    top: int = 0
    others: tuple[int, ...] = ()


@torch.inference_mode()
def score(logits_RV: torch.Tensor, wishes: Sequence[LogprobQuery]) -> list[Token]:
    """Given ids, one per row, with their log-probabilities. Waits for the GPU once."""
    widest = max(len(wish.others) for wish in wishes)
    ids = [[wish.id, *wish.others, *[wish.id] * (widest - len(wish.others))] for wish in wishes]
    ids_RO = torch.tensor(ids, device=logits_RV.device)
    total_R1 = logits_RV.logsumexp(1, keepdim=True)
    likely = logits_RV.topk(min(max(wish.top for wish in wishes), logits_RV.shape[1]), dim=1)
    columns = [logits_RV.gather(1, ids_RO) - total_R1, likely.indices, likely.values - total_R1]
    plain = torch.cat([part.double() for part in columns], dim=1).tolist()
    return [
        _make_token(wish, row[: 1 + widest], row[1 + widest :])
        for wish, row in zip(wishes, plain, strict=True)
    ]


def _make_token(wish: LogprobQuery, logprobs: Sequence[float], likely: Sequence[float]) -> Token:
    """Builds a token from log-probabilities of its id and of others, followed by the
    most likely ids and theirs."""
    most = len(likely) // 2
    top = zip(map(int, likely[: wish.top]), likely[most : most + wish.top], strict=True)
    return Token(wish.id, logprobs[0], (*top, *zip(wish.others, logprobs[1:], strict=False)))


def _token(row: Sequence[float], top: int) -> Token:
    """Builds a token from a row: id, log-probability, most likely ids, their log-probabilities."""
    most = (len(row) - 2) // 2
    likely = zip(map(int, row[2 : 2 + top]), row[2 + most : 2 + most + top], strict=True)
    return Token(int(row[0]), row[1], tuple(likely))


def _adjust_logits(logits_RV: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    """Logits after penalties and grammars; the input is not changed."""
    if not any(chooser.penalized or chooser.matcher for chooser in choosers):
        return logits_RV
    logits_RV = logits_RV.clone()
    for row_V, chooser in zip(logits_RV, choosers, strict=True):
        if chooser.penalized:
            chooser.penalize(row_V)
        if chooser.matcher is not None:
            forbidden = torch.from_numpy(~chooser.matcher.allowed_ids())
            row_V.masked_fill_(forbidden.to(row_V.device, non_blocking=True), -torch.inf)
    return logits_RV


def _choose_ids(logits_RV: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    """The chosen ids, int64 [R]."""
    drawn = [row for row, chooser in enumerate(choosers) if chooser.sampling.temperature > 0]
    if not drawn:
        return logits_RV.argmax(1)
    if len(drawn) == len(choosers):
        return _draw_ids(logits_RV, choosers)
    ids_R = logits_RV.argmax(1)
    rows = torch.tensor(drawn, device=logits_RV.device)
    ids_R[rows] = _draw_ids(logits_RV[rows], [choosers[row] for row in drawn])
    return ids_R


def _draw_ids(logits_RV: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    """Ids drawn with temperature and filters, int64 [R]."""
    samplings = [chooser.sampling for chooser in choosers]
    parameters = [
        (max(s.temperature, LEAST_TEMPERATURE), s.min_p, chooser.number())
        for s, chooser in zip(samplings, choosers, strict=True)
    ]
    temperature, min_p, number = torch.tensor(parameters, device=logits_RV.device)[:, :, None].unbind(1)
    weights_RV = (
        (logits_RV - logits_RV.amax(1, keepdim=True)) / temperature
    ).exp_()  # the most likely id has weight 1
    least_R1 = min_p
    if any(s.top_k or s.top_p < 1 for s in samplings):
        least_R1 = torch.maximum(min_p, _least_weight(weights_RV, samplings))
    weights_RV.masked_fill_(weights_RV < least_R1, 0)
    sums_RV = weights_RV.cumsum(1)
    total_R1 = sums_RV[:, -1:]
    passed = torch.minimum(number * total_R1, total_R1.nextafter(torch.zeros_like(total_R1)))
    return torch.searchsorted(sums_RV, passed, right=True).squeeze(1)


def _least_weight(weights_RV: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """The smallest weight that top_k and then top_p keep, [R, 1]; 0 keeps all."""
    vocabulary = weights_RV.shape[1]
    parameters = torch.tensor([(s.top_k or vocabulary, s.top_p) for s in samplings], device=weights_RV.device)
    k_R1, p_R1 = parameters[:, :1].long().clamp_max(vocabulary), parameters[:, 1:]
    falling_RV = _falling(weights_RV)
    sums_RV = falling_RV.cumsum(1)
    share_R1 = p_R1 * sums_RV.gather(1, k_R1 - 1)
    # the smallest set that reaches the share; rounding may leave the sum of all below 1
    count_R1 = torch.where(p_R1 < 1, (sums_RV < share_R1).sum(1, keepdim=True) + 1, k_R1)
    return falling_RV.gather(1, torch.minimum(count_R1, k_R1) - 1)


def _falling(weights_RV: torch.Tensor) -> torch.Tensor:
    """The weights of each row, in descending order."""
    if weights_RV.is_cuda:
        return weights_RV.sort(dim=1, descending=True).values
    return torch.from_numpy(np.sort(weights_RV.numpy(), axis=1)).flip(1)
