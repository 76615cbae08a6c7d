"""Traces where a model comes from, down to the source files, for `ctllm lineage`.

No file is written for this alone. An export has lineage.json, a checkpoint its state, a run RUN.json and
DATA.json, a section its manifest and plan; each names its inputs by folder and hash. The trace follows these,
and compares each link with the current file. It reports what is missing or has changed, and takes the rest
from the recorded facts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib import request

from ctllm_ray.base import exports, storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import CtllmError, InputError, NotFound
from ctllm_ray.base.exports import LINEAGE
from ctllm_ray.base.recipe import CLEAN, ROOT
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import MANIFEST, Manifest
from ctllm_ray.train.checkpoint.lineage import PARENT_MODEL, PARENT_SHA256, RUN
from ctllm_ray.train.data.data_log import DATA

CHECKPOINT = "CHECKPOINT.json"  # the same name as in train/checkpoint/checkpoint.py, which imports torch
CONFIG = "config.json"
FILES = 20  # of an input, listed one by one
# larger and remote files are compared by time or ETag; hashing this much of a local file takes a second
HASHED_BYTES = 1 << 30
ASK_S = 30


@dataclass(frozen=True)
class Link:
    """One link of the chain: what it is, where, facts about it, and what it was made from."""

    what: str
    where: str
    facts: Sequence[str] = ()
    made_from: Sequence[Link] = ()


def trace_lineage(target: str) -> Link:
    """Traces a model: a folder (export, checkpoint, run, section) or the URL of
    a server. Raises `NotFound`."""
    if target.startswith(("http://", "https://")):
        return _trace_served(target)
    folder = storage.absolute(target).rstrip("/")
    names = storage.list_names(folder)
    for name, follow in (
        (LINEAGE, _export),
        (CHECKPOINT, _checkpoint),
        (RUN, _trace_begun),
        (MANIFEST, _section),
    ):
        if name in names:
            return follow(folder)
    if CONFIG in names:
        return _foreign(folder)
    return _export(
        exports.newest(folder, "give an export, a checkpoint, a run, a section, or the URL of a server")
    )


def format_lineage(link: Link) -> Iterator[str]:
    """Formats the chain as a tree, line by line. A repeated link is shown once."""
    yield from _lines(link, "", "", set())


def _lines(link: Link, first: str, rest: str, printed: set[str]) -> Iterator[str]:
    again = link.where in printed and link.made_from
    yield f"{first}{link.what}  {link.where}{', as above' if again else ''}"
    if again:
        return
    printed.add(link.where)
    bar = "│ " if link.made_from else "  "
    yield from (f"{rest}{bar}{fact}" for fact in link.facts)
    for index, inner in enumerate(link.made_from):
        last = index + 1 == len(link.made_from)
        yield from _lines(
            inner, f"{rest}{'└─' if last else '├─'} ", f"{rest}{'   ' if last else '│  '}", printed
        )


# --- models
# ----------------------------------------------------------------------------------------------------------


def _trace_served(url: str) -> Link:
    """The model of a server, with the lineage that the server reports."""
    models_request = request.Request(f"{url.rstrip('/').removesuffix('/v1')}/v1/models")
    if key := os.environ.get("OPENAI_API_KEY"):
        models_request.add_header("Authorization", f"Bearer {key}")
    try:
        with request.urlopen(models_request, timeout=ASK_S) as answer:
            [model, *_] = json.load(answer)["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "give the URL of `ctllm serve`; if it needs a key, set OPENAI_API_KEY"
        raise InputError(f"no ctllm server answers at this URL: {error}", where=url, remedy=remedy) from error
    paper = model.get("lineage") or {}
    where = f"{model['id']} at {url}"
    return (
        _model(where, paper)
        if paper
        else Link("model", where, ["the server reports no lineage of the model"])
    )


def _export(folder: str) -> Link:
    return _model(folder, exports.read_lineage(folder))


def _model(where: str, paper: Mapping[str, Any]) -> Link:
    """An exported model, from its lineage.json."""
    weights = {name: file for name, file in paper["files"].items() if name.endswith(".safetensors")}
    facts = [
        f"step {paper['checkpoint']['step']:,}, {paper['tokens']:,} tokens, {paper['precision']}",
        *(
            f"{name}: sha256 {_short(file['sha256'])}, {file['bytes']:,} bytes"
            for name, file in weights.items()
        ),
    ]
    checkpoint = paper["checkpoint"]["folder"]
    if not storage.exists(checkpoint):
        facts.append(f"its checkpoint no longer exists: {checkpoint}")
    run = checkpoint.rpartition("/checkpoints/")[0]
    return Link("model", where, facts, [_trace_run(run, paper["recipe"], paper["code"], paper["data"])])


def _foreign(folder: str) -> Link:
    weights = [name for name in storage.list_names(folder) if name.endswith(".safetensors")]
    facts = [
        f"{name}: sha256 {_short(storage.size_and_sha256(storage.join(folder, name))[1])}" for name in weights
    ]
    return Link("model", folder, [*facts, f"it has no {LINEAGE}, so its origin is unknown"])


# --- runs
# ------------------------------------------------------------------------------------------------------------


def _checkpoint(folder: str) -> Link:
    """A checkpoint, with the current data of its run, including data that joined later."""
    state = storage.read_json(storage.join(folder, CHECKPOINT))["state"]
    run = folder.rpartition("/checkpoints/")[0]
    facts = [f"step {state['step']:,}, {state['tokens']:,} tokens, {state['world']} workers"]
    return Link("checkpoint", folder, facts, [_trace_run(run, state["recipe"], state["lineage"], _data(run))])


def _trace_begun(folder: str) -> Link:
    """A run, from what it wrote when it began."""
    begun = storage.read_json(storage.join(folder, RUN))
    return _trace_run(folder, begun["recipe"], begun["lineage"], _data(folder))


def _data(run: str) -> dict[str, Any]:
    path = storage.join(run, DATA)
    return storage.read_json(path) if storage.exists(path) else {}


def _trace_run(
    folder: str, recipe: Mapping[str, Any], code: Mapping[str, str], data: Mapping[str, Any]
) -> Link:
    """A training run: its recipe and code, its initial model, and its token shards."""
    facts = [f"{recipe['train']['objective']['use']}: {_recipe(recipe)}", _code(code)]
    corpora = [
        corpus for generation in data.get("generations", []) for corpus in generation.get("corpora", [])
    ]
    if not corpora:
        facts.append(f"its token shards are unknown: {DATA} is missing")
    return Link("run", folder, facts, [*_parents(folder, recipe, code), *map(_tokens, corpora)])


def _parents(folder: str, recipe: Mapping[str, Any], code: Mapping[str, str]) -> list[Link]:
    """What a run began with: the checkpoint that it branched from, or its initial model."""
    if code.get("parent"):
        return [
            _follow("checkpoint", code["parent"], "the checkpoint that it branched from no longer exists")
        ]
    named = recipe["model"]["path"]
    if not named:
        return []
    parent = code.get(PARENT_MODEL, "")
    if not parent:
        return [Link("model", named, ["the folder of the initial model was not recorded"])]
    link = _follow("model", parent, f"the initial model ({named}) no longer exists")
    if PARENT_SHA256 in code and code[PARENT_SHA256] != _paper(parent):
        link = Link(
            link.what, link.where, ["it has changed since the run began", *link.facts], link.made_from
        )
    return [link]


def _paper(folder: str) -> str:
    """SHA-256 of a model folder's own description; empty if it is missing."""
    names = [name for name in (LINEAGE, CONFIG) if storage.exists(storage.join(folder, name))]
    return storage.size_and_sha256(storage.join(folder, names[0]))[1] if names else ""


def _follow(what: str, folder: str, note: str) -> Link:
    try:
        return trace_lineage(folder)
    except NotFound:
        return Link(what, folder, [note])


# --- sections
# --------------------------------------------------------------------------------------------------------


def _tokens(corpus: Mapping[str, Any]) -> Link:
    """The token shards that joined a run together, compared with the current ones."""
    folder, shards = corpus["folder"], corpus["shards"]
    manifest_now = _manifest(folder)
    current = {shard.path: shard.sha256 for shard in manifest_now.shards} if manifest_now else {}
    changed = [shard["path"] for shard in shards if current.get(shard["path"]) != shard["sha256"]]
    facts = [
        f"{len(shards)} shards, {sum(shard['tokens'] for shard in shards):,} tokens, {_together(shards)}"
    ]
    if manifest_now and changed:
        facts.append(f"{len(changed)} of them have changed or are missing since then, first {changed[0]}")
    if not manifest_now:
        return Link("tokens", folder, [*facts, "the section no longer exists, so its origin is unknown"])
    return Link("tokens", folder, facts + _section_facts(manifest_now)[1:], _origins(folder, manifest_now))


def _section(folder: str) -> Link:
    """A finished section of work."""
    finished = manifest.read_manifest(folder)
    facts = _section_facts(finished)
    if finished.section == CLEAN:
        return Link(CLEAN, folder, facts, _sources(folder, finished))
    return Link(finished.section, folder, facts, _origins(folder, finished))


def _section_facts(finished: Manifest) -> list[str]:
    counts = f"{finished.counts['kept']:,} of {finished.documents:,} documents"
    digest = (
        f", {_together([{'sha256': shard.sha256} for shard in finished.shards])}" if finished.shards else ""
    )
    return [f"{counts}{digest}", _recipe(finished.recipe), _code(finished.provenance)]


def _origins(folder: str, finished: Manifest) -> list[Link]:
    """What a token or tokenizer section, or a pass, was made from."""
    beside = folder.rpartition("/")[0]
    if finished.section == "tokens":
        return [_tokenizer(finished, beside), *_documents(finished, beside)]
    return _trace_tokenizer(folder, finished) or _documents(finished, beside)


def _documents(made: Manifest, beside: str) -> list[Link]:
    """The section of documents beside the section that was made from it."""
    read = {
        key.removesuffix("_shards"): digest
        for key, digest in made.provenance.items()
        if key.endswith("_shards")
    }
    return [_trace_documents(section, f"{beside}/{section}", digest) for section, digest in read.items()]


def _trace_documents(section: str, folder: str, digest: str) -> Link:
    """A section of documents, compared with what the later section recorded."""
    manifest_now = _manifest(folder)
    if manifest_now and manifest_now.digest("kept") == digest:
        return _section(folder)
    return Link(
        section,
        folder,
        [f"the shards that were read {'have changed since then' if manifest_now else 'no longer exist'}"],
    )


def _tokenizer(tokens: Manifest, beside: str) -> Link:
    """The tokenizer of token shards."""
    sha256, folder = tokens.provenance["tokenizer"], f"{beside}/tokenizer"
    facts = [f"{int(tokens.provenance['vocab_size']):,} pieces, sha256 {_short(sha256)}"]
    manifest_now = _manifest(folder)
    if not manifest_now:
        return Link(
            "tokenizer",
            folder,
            [*facts, "the section no longer exists; a copy is stored with the token shards"],
        )
    if manifest_now.provenance["tokenizer"] != sha256:
        return Link("tokenizer", folder, [*facts, "another tokenizer is there now"])
    return Link(
        "tokenizer", folder, facts + _section_facts(manifest_now)[1:], _trace_tokenizer(folder, manifest_now)
    )


def _trace_tokenizer(folder: str, finished: Manifest) -> list[Link]:
    """The tokenizer that a section used instead of training one."""
    path = (finished.recipe.get("tokenizer") or {}).get("path", "")
    if not path:
        return []
    root = folder.rsplit("/", 3)[0]
    return [
        _followed_tokenizer(f"{root}/{path.removeprefix(ROOT).strip('/')}" if path.startswith(ROOT) else path)
    ]


def _followed_tokenizer(path: str) -> Link:
    manifest_now = _manifest(path)
    if manifest_now and manifest_now.section == "tokenizer":
        return _section(storage.absolute(path))
    return Link("tokenizer", path, ["used from there"])


def _sources(folder: str, finished: Manifest) -> list[Link]:
    """The inputs of a clean section, with the files that were read."""
    splits = (manifest.section_files(folder).read_begun() or {"splits": []})["splits"]
    read = {
        (split["input"], file["name"]): file
        for split in splits
        for file in (split["file"], *split.get("more", ()))
    }
    links = []
    for part in finished.recipe["data"]["inputs"]:
        files = [
            read.get((part["name"], i["name"]), i) for i in finished.inputs if i["input"] == part["name"]
        ]
        size = sum(file.get("size", file.get("bytes", 0)) for file in files)
        facts = [
            f"{len(files):,} {'file' if len(files) == 1 else 'files'}, {size:,} bytes",
            *map(_file, files[:FILES]),
        ]
        facts += [f"... and {len(files) - FILES:,} more files"] if len(files) > FILES else []
        links.append(Link(f"source {part['name']} ({part['use']})", part["path"], facts))
    return links


def _file(file: Mapping[str, Any]) -> str:
    """A file that was read, in its current state: its hash, and whether it was changed."""
    if "uri" not in file:
        return f"{file['name']}: {file['bytes']:,} bytes; its location is unknown"
    uri, size, version = file["uri"], file["size"], file["version"]
    then = f"{size:,} bytes, version {version}"
    try:
        [now] = storage.list_files(uri)
    except CtllmError:
        return f"{uri}: no longer exists; {then}"
    if now.size != size:
        return f"{uri}: has changed since then; {then}"
    if storage.is_remote(uri) or size > HASHED_BYTES:
        return f"{uri}: {then}{'' if now.version == version else '; rewritten since then'}"
    digest = _short(storage.size_and_sha256(uri)[1])
    return (
        f"{uri}: sha256 {digest}, {size:,} bytes{'' if now.version == version else '; rewritten since then'}"
    )


def _manifest(folder: str) -> Manifest | None:
    try:
        return manifest.read_manifest(folder)
    except NotFound:
        return None


# --- words
# -----------------------------------------------------------------------------------------------------------


def _recipe(recipe: Mapping[str, Any]) -> str:
    return f"recipe {recipe['name']} {recipe['version']}, fingerprint {_short(fingerprint(recipe))}"


def _code(code: Mapping[str, str]) -> str:
    return f"ctllm-ray {code.get('ctllm-ray', '?')}, commit {code.get('commit', 'unknown')}"


def _together(shards: Iterable[Mapping[str, str]]) -> str:
    """One hash for many shards: the hash of the list of their hashes."""
    return f"sha256 of all {_short(fingerprint({'shards': [shard['sha256'] for shard in shards]}))}"


def _short(sha256: str) -> str:
    return sha256[:16]
