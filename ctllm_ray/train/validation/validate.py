"""Validation: bits per byte and per character by group, on the same held-out documents at every checkpoint.

Bits per byte compare models with different tokenizers, which loss per token does not (The Pile, Gao et al.
2020). The nats of a document are the sum over all its targets, its end included; bits = nats / ln 2, over the
bytes or characters of its text. The documents of a group are taken in the order of a hash of their ids, from
the front, up to `validation.max_tokens` targets, so they depend neither on shards nor on the order of inputs.

A document longer than the context is cut into pieces without overlap: what stands after a cut has lost its
beginning, so long documents count as slightly harder than they are; a sliding window would cost a second pass
for the last tenth of a bit. Pieces of many documents share a row and never see each other, whatever the run's
own packing: the result is that of one document at a time, at the price of a pass over the tokens. BOS stays
BOS under conditional pretraining.

Of conversations the answers count and nothing else, their ends included: nats over the bytes of the answers'
text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import xxhash

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import parse_recipe
from ctllm_ray.model import llama
from ctllm_ray.model.config import for_recipe
from ctllm_ray.shards.packers.best_fit import BestFit
from ctllm_ray.shards.tokens import TokenShard
from ctllm_ray.train import adapters, objective
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.data import corpora
from ctllm_ray.train.data.batch import IGNORED, Batch
from ctllm_ray.train.losses import head_loss
from ctllm_ray.train.tracking import records
from ctllm_ray.train.validation import validate_pairs

MICRO_TOKENS = 16_384  # positions of one forward pass


@dataclass(frozen=True)
class HeldOutDocument:
    """BOS + content + EOS and the size of the text; or a conversation, whose text is its answers."""

    ids: np.ndarray
    text_bytes: int
    text_chars: int
    doc_id: str = ""
    answers: np.ndarray = field(
        default_factory=lambda: np.array([1, np.iinfo(np.int32).max])
    )  # [start, stop, ...]

    @cached_property
    def labels(self) -> np.ndarray:
        """The ids; IGNORED outside answers."""
        values = np.full(len(self.ids), IGNORED, np.int64)
        for start, stop in self.answers.reshape(-1, 2):
            values[start:stop] = self.ids[start:stop]
        return values

    @property
    def targets(self) -> int:
        """The number of counted ids."""
        return int((self.labels != IGNORED).sum())


def documents(uris: Mapping[str, Sequence[str]], max_tokens: int) -> dict[str, list[HeldOutDocument]]:
    """The documents of each group for comparing models; at least one of each non-empty group."""
    results = {group: _first(group_uris, max_tokens) for group, group_uris in uris.items()}
    results = {group: chosen for group, chosen in results.items() if chosen}
    if not results:
        raise InputError(
            "there are no held-out documents", where="train.validation", remedy="raise tokens.held_out_share"
        )
    return results


def _first(uris: Sequence[str], max_tokens: int) -> list[HeldOutDocument]:
    """Documents in order of their id hashes, up to `max_tokens` targets in total."""
    shards = [TokenShard.open(uri) for uri in uris]
    answers = [shard.answers() for shard in shards]
    places = [
        (xxhash.xxh3_64_intdigest(name.encode()), name, number, row)
        for number, shard in enumerate(shards)
        for row in range(len(shard))
        for name in [shard.doc_id(row)]
    ]
    chosen: list[HeldOutDocument] = []
    targets = 0
    for _, name, number, row in sorted(places):
        shard, (spans, offsets) = shards[number], answers[number]
        ids = shard.ids(row).astype(np.int64)
        targets += len(ids) - 1
        if targets > max_tokens and chosen:
            break
        answer_spans = spans[offsets[row] : offsets[row + 1]]
        chosen.append(
            HeldOutDocument(ids, int(shard.text_bytes[row]), int(shard.text_chars[row]), name, answer_spans)
        )
    return chosen


def bits(
    model: llama.LlamaForCausalLM,
    groups: Mapping[str, Sequence[HeldOutDocument]],
    *,
    sequence_tokens: int,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> dict[str, dict[str, float]]:
    """By group: bits_per_byte, bits_per_char, nats_per_token, and counts of documents,
    tokens, bytes, characters."""
    training = model.training
    model.eval()
    try:
        return {
            group: _of_group(model, chosen, sequence_tokens, precision) for group, chosen in groups.items()
        }
    finally:
        model.train(training)


def _of_group(
    model: llama.LlamaForCausalLM, chosen: Sequence[HeldOutDocument], sequence_tokens: int, precision: str
) -> dict[str, float]:
    nats = 0.0
    device = model.lm_head.weight.device
    for batch in rows(chosen, sequence_tokens):
        tensors = llama.tensors(batch, device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            hidden_BTD = llama.forward_hidden(model, tensors)
            nats += float(head_loss.nats(hidden_BTD, model.lm_head.weight, tensors["labels"]))
    text_bytes, text_chars = sum(d.text_bytes for d in chosen), sum(d.text_chars for d in chosen)
    tokens = sum(d.targets for d in chosen)
    return {
        "bits_per_byte": nats / math.log(2) / max(1, text_bytes),
        "bits_per_char": nats / math.log(2) / max(1, text_chars),
        "nats_per_token": nats / max(1, tokens),
        "documents": len(chosen),
        "tokens": tokens,
        "text_bytes": text_bytes,
        "text_chars": text_chars,
    }


def rows(chosen: Sequence[HeldOutDocument], sequence_tokens: int) -> Iterator[Batch]:
    """The documents packed into batches that keep them apart. Each target is a label once."""
    packing = BestFit(np.array([len(d.ids) - 1 for d in chosen], np.int64), sequence_tokens, 0)
    at_once = max(1, MICRO_TOKENS // sequence_tokens)
    for first in range(0, packing.fills.rows, at_once):
        numbers = range(first, min(first + at_once, packing.fills.rows))
        yield _batch([packing.pieces(row) for row in numbers], chosen, sequence_tokens)


def _batch(pieces: Sequence[Any], chosen: Sequence[HeldOutDocument], sequence_tokens: int) -> Batch:
    shape = (len(pieces), sequence_tokens)
    inputs, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    positions, numbers = np.zeros(shape, np.int64), np.full(shape, -1, np.int32)
    for row, of_row in enumerate(pieces):
        at = 0
        spans = zip(of_row.documents, of_row.begins, of_row.counts, strict=True)
        for number, (document, begin, count) in enumerate(spans):
            here = slice(at, at + count)
            inputs[row, here] = chosen[document].ids[begin - 1 : begin - 1 + count]
            labels[row, here] = chosen[document].labels[begin : begin + count]
            positions[row, here] = np.arange(count)
            numbers[row, here] = number
            at += count
    return Batch(inputs, labels, positions, numbers)


def validate_checkpoint(recipe_plain: Mapping[str, Any], folder: str) -> dict[str, dict[str, float]]:
    """Validates the model in a checkpoint folder; also writes the result to the run's
    `validation/`. Runs as a task.

    Raises `VersionConflict` if the held-out documents have another tokenizer than the run.
    """
    recipe = parse_recipe(recipe_plain)
    (shape, train), device = recipe.training(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert train.validation is not None
    own = corpora.read_sections(recipe.token_folders())
    validated = corpora.validation_sections(recipe, own)
    vocabulary = corpora.shared_vocabulary(own | validated)
    saved = checkpoint.open_at(folder)
    config = for_recipe(shape, vocabulary.vocab_size, train.sequence_tokens)
    model = llama.empty(config)
    weights = adapters.weights_of(recipe, vocabulary, saved)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights(name))
    chosen = documents(corpora.held_out(validated), train.validation.max_tokens)
    precision = train.precision if device.type == "cuda" else "fp32"
    model.to(device)  # type: ignore[arg-type]
    results = bits(model, chosen, sequence_tokens=train.sequence_tokens, precision=precision)
    if objective.find_objective(train).needs_reference:
        groups = validate_pairs.preferences(recipe, model)
        results = {group: facts | groups.get(group, {}) for group, facts in results.items()}
    saved.forget_copies()
    records.write_validation(recipe.folder("train"), saved.state.step, saved.state.tokens, results)
    return results
