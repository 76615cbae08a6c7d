"""Trains a SentencePiece BPE tokenizer like CT-LLM's from a sample of texts.

No normalization, no dummy prefix, runs of spaces kept, one piece per digit, rare characters as UTF-8 bytes. A
newline is always its byte: it ends a training sentence, so no piece spans lines, and llama.cpp finds it where
it expects it. The space always has its piece ▁, however rare it is in the sample: without one it would be the
bytes of ▁, and would come back as ▁. U+2581 in a text stays apart from spaces (metaspace.py). The same texts give
the same bytes: one thread, no sampling, no shuffling.

Cost, SentencePiece 0.2.3, one core of a shared machine: 32,000 pieces on 20 MB in 7 s of CPU and 0.54 GB,
64,000 on 60 MB in 20 s and 1.6 GB: memory grows with the sample, time with both. Texts are read twice, once
to count characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO

import numpy as np
import psutil

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.tokenizer import metaspace, specials

#: Share of the sample's characters that get their own piece; others become bytes (Baichuan 2 report, 2.1:
#: 0.9999).
CHARACTER_COVERAGE = 0.9999
#: Maximum share of pieces that single characters take: a small vocabulary needs words more than rare
#: characters.
CHARACTER_SHARE = 0.5
LEAST_COVERAGE = 0.98  # the trainer's minimum
PIECE_CHARS = 16  # longest piece (MAP-NEO's tokenizer)
SENTENCE_BYTES = 4096  # longer lines are cut: the trainer would drop them with a log line only
MEMORY_PER_BYTE = 32  # training memory per byte of sample; 27 measured at 20 and 60 MB
BYTES = 256  # pieces that are single bytes
SMALLEST = 2 * (specials.COUNT + BYTES)  # pieces; half of them are learnt

#: The trainer marks rare characters with U+2585 and drops sentences that contain it. NUL ends a string in the
#: trainer. What stands for U+2581 in a text must be in no piece.
_CUT_AT = re.compile(f"[\n\x00\u2585{metaspace.SPACE}{metaspace.STAND_IN}{metaspace.ESCAPE}]")


def train(texts: Sequence[str], vocab_size: int) -> bytes:
    """Trains a SentencePiece model with exactly `vocab_size`
    pieces, including specials and bytes; returns its bytes.

    Raises `RecipeError` if the sample cannot give so many, or is too large for this machine's memory, and
    `InputError` where there is no text.
    """
    import sentencepiece

    if vocab_size < SMALLEST:
        raise RecipeError(
            f"a vocabulary of {vocab_size} pieces is too small: {specials.COUNT} specials "
            f"and {BYTES} bytes are always part of it",
            where="tokenizer.vocab_size",
            remedy=f"set tokenizer.vocab_size to at least {SMALLEST}",
        )
    _check_memory(texts)
    model = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=_coverage(texts, vocab_size),
            required_chars=metaspace.SPACE,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,  # indentation of code
            max_sentencepiece_length=PIECE_CHARS,
            max_sentence_length=SENTENCE_BYTES + 1,
            input_sentence_size=0,  # all: the caller limits the sample
            shuffle_input_sentence=False,
            num_threads=1,  # the number is stored in the model's bytes
            minloglevel=2,
            unk_id=specials.SPECIALS.index(specials.UNK),
            bos_id=specials.SPECIALS.index(specials.BOS),
            eos_id=specials.SPECIALS.index(specials.EOS),
            pad_id=specials.SPECIALS.index(specials.PAD),
            control_symbols=list(specials.SPECIALS[4:]),
        )
    except RuntimeError as error:
        raise _explain_training_error(error, vocab_size) from None
    return metaspace.add_rules(model.getvalue())


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """The pieces of text that the trainer sees: lines; long lines are cut into parts
    of at most SENTENCE_BYTES."""
    for text in texts:
        for line in _CUT_AT.split(text):
            yield from _parts(line)


def _parts(line: str) -> Iterator[str]:
    if len(line) * 4 <= SENTENCE_BYTES or len(data := line.encode()) <= SENTENCE_BYTES:
        if line:
            yield line
        return
    start = 0
    while start < len(data):
        stop = min(len(data), start + SENTENCE_BYTES)
        while stop < len(data) and data[stop] & 0xC0 == 0x80:  # do not cut inside a character
            stop -= 1
        yield data[start:stop].decode()
        start = stop


def _coverage(texts: Sequence[str], vocab_size: int) -> float:
    """Share of characters that get pieces: CHARACTER_COVERAGE, limited by what
    CHARACTER_SHARE of the pieces covers."""
    counts = np.zeros(0x110000, np.int64)
    for text in texts:
        points, result = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_counts=True)
        counts[points] += result
    if not counts.any():
        raise _no_text()
    covered = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    room = int((vocab_size - specials.COUNT - BYTES) * CHARACTER_SHARE)
    return float(min(CHARACTER_COVERAGE, max(LEAST_COVERAGE, covered[room - 1])))


def _check_memory(texts: Sequence[str]) -> None:
    sample_bytes = sum(len(text.encode()) for text in texts)
    need, free = sample_bytes * MEMORY_PER_BYTE, psutil.virtual_memory().available
    if need > free:
        raise RecipeError(
            f"training on {sample_bytes / 1e6:.0f} MB takes about {need / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            where="tokenizer.sample_mb",
            remedy=f"set tokenizer.sample_mb to at most {free / MEMORY_PER_BYTE / 1e6:.0f}, or run "
            "on a machine with more memory",
        )


def _no_text() -> InputError:
    return InputError(
        "the tokenizer sample contains no text",
        where="tokenizer",
        remedy="check with `ctllm report` what the clean section kept",
    )


def _explain_training_error(error: RuntimeError, vocab_size: int) -> Exception:
    where = "tokenizer.vocab_size"
    if "!sentences_.empty()" in str(error):  # line ends, NUL or U+2581 and nothing else
        return _no_text()
    if match := re.search(r"set it to a value <= (\d+)", str(error)):
        reason = f"the sample is too small for {vocab_size} pieces: it allows at most {match[1]}"
        return RecipeError(
            reason,
            where=where,
            remedy=f"set tokenizer.vocab_size to at most {match[1]}, or raise tokenizer.sample_mb",
        )
    if match := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
        reason = f"{vocab_size} pieces are too few for the common characters of the sample"
        return RecipeError(reason, where=where, remedy=f"set tokenizer.vocab_size to more than {match[1]}")
    return error
