"""Schedules an engine's work: admits waiting requests to slots and plans one step after another.

A step is one token of each request that is being answered and at most `prefill_tokens` of prompts.
`begin` and `end` are quick and need the engine's lock; `compute` is where the time goes and needs
none, for slots are given out in `begin` only. What was cancelled between them leaves its slot at once
and its results are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ctllm_ray.inference.attention import SequencePiece
from ctllm_ray.inference.decoder import Decoder
from ctllm_ray.inference.engine import Token
from ctllm_ray.inference.requests import Delivery, GenerateRequest, Request, ScoreRequest
from ctllm_ray.inference.sampling import choose, score
from ctllm_ray.inference.slots import Place, Slots

#: Rows of logits scored at once: 64 rows of 125,696 ids take 32 MB.
_SCORED_ROWS = 64


@dataclass(frozen=True)
class EngineStep:
    """Prefixes to copy, in this order, then pieces to compute, in order of their slots."""

    places: Sequence[Place]
    planned: Sequence[tuple[Request, SequencePiece]]


class Steps:
    """The requests and slots of one decoder."""

    def __init__(self, decoder: Decoder, prefill_tokens: int) -> None:
        self.waiting: list[Request] = []
        self.running: list[Request] = []  # in order of arrival
        self.slots = Slots(decoder.slots, decoder.context_tokens)
        self._decoder, self._prefill_tokens = decoder, prefill_tokens

    @property
    def idle(self) -> bool:
        """True if there is no work."""
        return not self.running and not self.waiting

    def cancel(self, request: Request) -> None:
        """Cancels the request; does nothing if it has ended already."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self._leave(request)

    def begin(self) -> EngineStep:
        """Gives slots to waiting requests and returns the next step."""
        return EngineStep(self._admit(), self._plan())

    def compute(self, step: EngineStep) -> list[Sequence[Token]]:
        """The new tokens of each planned request; none if its prompt is not finished."""
        for place in step.places:
            if place.source != place.slot and place.tokens:
                self._decoder.copy(place.source, place.slot, place.tokens)
        return self._tokens(step.planned, self._decoder.forward([piece for _, piece in step.planned]))

    def end(self, step: EngineStep, tokens: Sequence[Sequence[Token]]) -> list[Delivery]:
        """Records the results of a step; returns the letters to callers."""
        settled = [
            self._settle(request, piece, new)
            for (request, piece), new in zip(step.planned, tokens, strict=True)
            if request.slot >= 0  # else it was cancelled in the meantime
        ]
        return [letter for deliveries in settled for letter in deliveries]

    def _leave(self, request: Request) -> None:
        self.running.remove(request)
        self.slots.leave(request.slot)
        request.slot = -1

    def _admit(self) -> list[Place]:
        """Gives slots to waiting requests in order of arrival. Patient
        requests and those that wait for a prefix come later."""
        places = []
        for request in _impatient_first(self.waiting):
            place = self.slots.find(request.ids, request.wanted)
            if place is not None:
                self.slots.take(place, request.ids)
                request.slot, request.filled, request.cached_tokens = place.slot, place.tokens, place.tokens
                self.waiting.remove(request)
                self.running.append(request)
                places.append(place)
        return places

    def _plan(self) -> list[tuple[Request, SequencePiece]]:
        """The next step, in order of slots."""
        left = self._prefill_tokens
        planned = []
        for request in _impatient_first(self.running):
            if request.answering:
                planned.append((request, request.piece(1)))
            elif left:
                planned.append((request, request.piece(left)))
                left -= len(planned[-1][1].ids)
        return sorted(planned, key=lambda each: each[1].slot)

    def _tokens(
        self, planned: Sequence[tuple[Request, SequencePiece]], hidden_RW: torch.Tensor
    ) -> list[Sequence[Token]]:
        rows = hidden_RW.split([piece.rows for _, piece in planned])
        sequences: list[Sequence[Token]] = [() for _ in planned]
        answers = {
            n: request
            for n, (request, piece) in enumerate(planned)
            if isinstance(request, GenerateRequest) and piece.rows
        }
        if answers:
            mine = hidden_RW if len(answers) == len(hidden_RW) else torch.cat([rows[n] for n in answers])
            chosen = choose(self._decoder.logits(mine), [request.chooser for request in answers.values()])
            for n, token in zip(answers, chosen, strict=True):
                sequences[n] = (token,)
        for n, tokens in self._collect_scores(planned, rows).items():
            sequences[n] = tokens
        return sequences

    def _collect_scores(
        self, planned: Sequence[tuple[Request, SequencePiece]], rows: Sequence[torch.Tensor]
    ) -> dict[int, Sequence[Token]]:
        """The tokens of scoring requests, by their index in the plan; their rows are scored together."""
        wishes = {
            n: request.queries(piece)
            for n, (request, piece) in enumerate(planned)
            if isinstance(request, ScoreRequest)
        }
        wishes = {n: wished for n, wished in wishes.items() if wished}
        if not wishes:
            return {}
        hidden_RW, flat = (
            torch.cat([rows[n] for n in wishes]),
            [wish for wished in wishes.values() for wish in wished],
        )
        tokens: list[Token] = []
        for start in range(0, len(flat), _SCORED_ROWS):
            part = slice(start, start + _SCORED_ROWS)
            tokens += score(self._decoder.logits(hidden_RW[part]), flat[part])
        came = iter(tokens)
        return {n: [next(came) for _ in wished] for n, wished in wishes.items()}

    def _settle(self, request: Request, piece: SequencePiece, new: Sequence[Token]) -> list[Delivery]:
        """Records the results of one request; returns the letter to its caller, if any."""
        request.filled = piece.end
        self.slots.fill(request.slot, piece.end)
        if not new:
            return []
        letter = request.add(new)
        self.slots.append(request.slot, request.ids)
        if letter.finish or letter.error is not None:
            self._leave(request)
        return [letter]


def _impatient_first(requests: Sequence[Request]) -> list[Request]:
    """The requests in order of arrival, patient ones last."""
    return sorted(requests, key=lambda request: request.patient)
