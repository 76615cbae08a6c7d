"""The tokenizer section: trains a tokenizer on a sample of the kept documents, or uses an existing one.

The sample has the recipe's shares of sources, or those of the shards. The result is measured on documents
that are in no sample. On the same documents its two forms (tokenizer.model and tokenizer.json) must give equal
ids. A trained tokenizer must give back these documents and a list of hard strings, in both forms; of an existing
one the report counts what does not come back. It runs in the driver: training is one process, and a section that
was killed begins again (minutes; the files are few).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from rich.console import Console

from ctllm_ray.base import provenance, storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import TokenizerPart
from ctllm_ray.base.resolve import nearest
from ctllm_ray.corpus import documents, sampling
from ctllm_ray.corpus.engine import section_run
from ctllm_ray.corpus.sampling import CorpusSample
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.text.kernels import characters
from ctllm_ray.tokenizer import round_trip
from ctllm_ray.tokenizer.report import by_character, by_group, tables, vocabulary
from ctllm_ray.tokenizer.round_trip import HARD_STRINGS
from ctllm_ray.tokenizer.tokenizer import SentencePiece, Tokenizer, load_tokenizer
from ctllm_ray.tokenizer.train import train

SECTION: Final = "tokenizer"
REPORT = "report.json"
PACKAGES = ("sentencepiece", "tokenizers")
UNSEEN_BYTES = 500_000  # of each source, for the report
FULL_SHARE = 0.99  # a source that gives less than this share of its part is reported


def check(recipe: Recipe) -> None:
    """Raises if the tokenizer that the recipe names does not exist, before hours of work for it."""
    if recipe.tokenizer and recipe.tokenizer.path and not manifest.is_finished(recipe.folder(SECTION)):
        load_tokenizer(recipe.locate(recipe.tokenizer.path))


def prepare(recipe: Recipe, log: Callable[[str], None] = lambda line: None) -> Manifest:
    """Makes the tokenizer section if necessary; returns its manifest. Raises `CtllmError`.

    The corpus must be finished. `log` is told what begins.
    """
    part = recipe.tokenizer
    if part is None:
        remedy = "add `tokenizer: {vocab_size: ..., sample_mb: ...}` or `tokenizer: {path: ...}`"
        raise RecipeError("the recipe has no tokenizer", where="tokenizer", remedy=remedy)
    folder = recipe.folder(SECTION)
    made_from = documents.made_from(recipe, recipe.corpus)
    if manifest.is_finished(folder):
        finished = manifest.read_manifest(folder)
        section_run.check_same(finished, recipe, made_from)
        return finished
    log("drawing the sample")
    samples = _draw(recipe, part, _by_source(recipe))
    tokenizer = _make_tokenizer(part.model_copy(update={"path": recipe.locate(part.path)}), samples, log)
    report = _report(tokenizer, part, samples)
    tokenizer.save(folder)
    storage.write_json(storage.join(folder, REPORT), report)
    finished = _manifest(recipe, tokenizer, samples, made_from)
    manifest.write_manifest(folder, finished)
    return finished


def print_report(folder: str, console: Console) -> None:
    """Prints the report of a finished section."""
    report = storage.read_json(storage.join(folder, REPORT))
    for table in tables(report):
        console.print(table)
    for note in report["notes"]:
        console.print(note)
    console.print(f"tokenizer: {folder}")


def _by_source(recipe: Recipe) -> dict[str, list[Shard]]:
    """The kept shards of the corpus by source."""
    by_source: dict[str, list[Shard]] = {}
    for shard, source in documents.kept_shards(recipe, recipe.corpus):
        by_source.setdefault(source, []).append(shard)
    if not by_source:
        reason, remedy = (
            f"the section {recipe.corpus!r} kept no documents",
            "check its funnel, which `ctllm prepare` prints",
        )
        raise InputError(reason, where=recipe.folder(recipe.corpus), remedy=remedy)
    return by_source


def _draw(
    recipe: Recipe, part: TokenizerPart, sources: Mapping[str, Sequence[Shard]]
) -> dict[str, CorpusSample]:
    """A sample of each source. Raises `RecipeError` if a source is too small for its share."""
    for name in part.shares:
        if name not in sources:
            raise RecipeError(
                f"there is no source {name!r}", where="tokenizer.shares", remedy=nearest(name, sources)
            )
    shares = part.shares or _as_they_are(sources)
    samples = {}
    for name, shards in sources.items():
        wanted = int(part.sample_mb * 1e6 * shares.get(name, 0))
        samples[name] = sampling.draw(recipe.folder(recipe.corpus), shards, recipe.seed, wanted, UNSEEN_BYTES)
        if part.shares and samples[name].bytes < FULL_SHARE * wanted:
            raise _too_small(name, samples[name].bytes, wanted, shares[name])
    return samples


def _as_they_are(sources: Mapping[str, Sequence[Shard]]) -> dict[str, float]:
    sizes = {name: sum(shard.text_bytes for shard in shards) for name, shards in sources.items()}
    return {name: size / max(1, sum(sizes.values())) for name, size in sizes.items()}


def _too_small(name: str, available: int, wanted: int, share: float) -> RecipeError:
    return RecipeError(
        f"the source {name!r} has only {available / 1e6:.3g} MB; its share of the sample is "
        f"{wanted / 1e6:.3g} MB",
        where=f"tokenizer.shares.{name}",
        remedy=f"lower its share, or set tokenizer.sample_mb to at most {available / share / 1e6:.3g}",
    )


def _make_tokenizer(
    part: TokenizerPart, samples: Mapping[str, CorpusSample], log: Callable[[str], None]
) -> Tokenizer:
    if part.path:
        return load_tokenizer(part.path)
    texts = _texts(samples)
    log(
        f"training {part.vocab_size:,} pieces on "
        f"{sum(sample.bytes for sample in samples.values()) / 1e6:.1f} MB"
    )
    return SentencePiece(train(texts, part.vocab_size))


def _texts(samples: Mapping[str, CorpusSample]) -> list[str]:
    """The sample's texts, source by source in order of name, so that the recipe's order has no effect."""
    return [document.text for name in sorted(samples) for document in samples[name].documents]


def _report(tokenizer: Tokenizer, part: TokenizerPart, samples: Mapping[str, CorpusSample]) -> dict[str, Any]:
    """report.json: the training sample, and the measures on unseen documents.
    Raises if the two forms differ, or if a trained tokenizer does not give a text back."""
    unseen = [(name, document) for name in sorted(samples) for document in samples[name].unseen]
    texts = [document.text for _, document in unseen]
    contents = tokenizer.encode(texts)
    forms = round_trip.forms(tokenizer)
    round_trip.check_forms(forms, texts, contents, part.path)
    changes = round_trip.find_changes(forms, texts, contents)
    hard_changes = round_trip.find_hard_changes(forms)
    if not part.path:
        round_trip.check_trained(forms, changes, hard_changes, [document.id for _, document in unseen])
    groups = {
        "source": [name for name, _ in unseen],
        "genre": [document.genre or "none" for _, document in unseen],
        "script": [script(text) for text in texts],
    }
    return {
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "vocabulary": vocabulary(tokenizer),
        "sample": {} if part.path else {name: _describe_sample(sample) for name, sample in samples.items()},
        "groups": {way: by_group(tokenizer, texts, contents, names) for way, names in groups.items()},
        "characters": by_character(tokenizer, contents),
        "compared_documents": len(texts),  # all have equal ids from tokenizer.model and tokenizer.json
        "round_trip": {
            "documents": len(texts),
            "changed_documents": len(changes),
            "hard_strings": len(HARD_STRINGS),
            "changed_hard_strings": len(hard_changes),
        },
        "notes": [*_notes(part, samples), *round_trip.describe_changes(changes, hard_changes, len(texts))],
    }


def _describe_sample(sample: CorpusSample) -> dict[str, int]:
    return {
        "documents": len(sample.documents),
        "bytes": sample.bytes,
        "cut_documents": sample.cut_documents,
        "shards_read": sample.shards_read,
    }


def _notes(part: TokenizerPart, samples: Mapping[str, CorpusSample]) -> list[str]:
    """Notes for readers of the figures."""
    drawn = sum(sample.bytes for sample in samples.values())
    empty = [name for name, sample in samples.items() if not sample.unseen]
    notes = []
    if not part.path and drawn < FULL_SHARE * part.sample_mb * 1e6:
        notes.append(f"sample_mb is {part.sample_mb:g} MB, but the corpus has only {drawn / 1e6:.3g} MB")
    if empty:
        notes.append(f"not measured, because too small to hold out documents: {', '.join(empty)}")
    return notes


def script(text: str) -> str:
    """The script of a document: by its letters, and for Han by characters that only one script uses.

    Less than a twelfth of Han letters: another script. Kana make it Japanese from a twentieth of kana and Han
    on. A document with fewer Han than other letters is Chinese and Latin (mostly code with comments).
    """
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    entries = characters.table()[points[points < 0x10000]]
    counts = np.bincount(entries & characters.CLASS_MASK, minlength=16)
    han = counts[characters.HAN] + counts[characters.RARE_HAN] + int((points >= 0x20000).sum())
    kana, latin = counts[characters.KANA], counts[characters.LATIN]
    others = latin + counts[characters.HANGUL] + counts[characters.LETTER]
    if kana > 0.05 * (kana + han):
        return "Japanese"
    if 12 * han < han + others:
        return "Latin" if latin * 2 > others else "other letters"
    if han < others:
        return "Chinese and Latin"
    if not han:
        return "no letters"
    traditional, simplified = (
        (entries & flag > 0).sum() for flag in (characters.TRADITIONAL, characters.SIMPLIFIED)
    )
    if traditional == simplified:
        return "Han of both scripts"
    return "Traditional" if traditional > simplified else "Simplified"


def _manifest(
    recipe: Recipe, tokenizer: Tokenizer, samples: Mapping[str, CorpusSample], made_from: dict[str, str]
) -> Manifest:
    files = {
        f"file:{name}": hashlib.sha256(content).hexdigest() for name, content in tokenizer.files().items()
    }
    documents = (
        0 if recipe.tokenizer and recipe.tokenizer.path else sum(len(s.documents) for s in samples.values())
    )
    return Manifest(
        section=SECTION,
        name=recipe.name,
        version=recipe.version,
        fingerprint=fingerprint(recipe.decisions(SECTION)),
        recipe=recipe.decisions(SECTION),
        inputs=[{"input": name, "name": "kept", "bytes": sample.bytes} for name, sample in samples.items()],
        counts={"in": documents, "kept": documents},
        shards=[],
        provenance=provenance.of_code(PACKAGES) | made_from | files | {"tokenizer": tokenizer.sha256},
    )
