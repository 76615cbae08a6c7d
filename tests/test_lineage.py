"""`ctllm lineage`: the chain from a model to the files, and what it says where a link is gone or another."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray import lineage
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import InputError, NotFound
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.cli import run as ctllm
from ctllm_ray.corpus import pipeline
from ctllm_ray.lineage import Link
from ctllm_ray.train.checkpoint.export import export_checkpoint
from tests.corpus.conftest import page, run_here
from tests.train.tiny_runs import BATCH_TOKENS, SEQUENCE_TOKENS, run


@dataclass(frozen=True)
class Made:
    """A base model of two files, one that goes on from its export, and the folders of both exports."""

    base: Recipe
    child: Recipe
    base_export: str
    child_export: str


def recipe(root: Path, name: str, model: dict[str, Any], **parts: Any) -> Recipe:
    plain = {
        "name": name, "version": "1", "seed": 5, "root": str(root / "out"),
        "data": {"inputs": [{"use": "jsonl", "path": f"{root}/crawl/*.jsonl"}], "max_error_share": 0},
        "stages": [],
        "model": model,
        "train": {
            "objective": {"use": "pretrain"}, "tokens": 2 * BATCH_TOKENS, "batch_tokens": BATCH_TOKENS,
            "sequence_tokens": SEQUENCE_TOKENS, "packing": "best_fit", "document_attention": True,
            "precision": "fp32",
            "schedule": {"use": "wsd", "peak_rate": 0.003, "warmup_tokens": 64},
            "mixture": [{"shares": {"crawl": 1.0}}],
        } | parts.pop("train", {}),
    } | parts  # fmt: skip
    return recipes.parse_recipe(plain)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("lineage")
    (root / "crawl").mkdir()
    for part in range(2):
        rows = [json.dumps({"text": page(100 * part + i), "url": "http://a.example/"}) for i in range(40)]
        (root / "crawl" / f"{part}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    tokens = {"tokenizer": {"vocab_size": 700, "sample_mb": 1}, "tokens": {"held_out_share": 0.1}}
    base = recipe(root, "base", {"use": "tiny"}, **tokens)
    pipeline.prepare(base, run_here)
    run(base)
    base_export = export_checkpoint(base)
    taken = {"tokenizer": {"path": "root:base/1/tokenizer"}, "tokens": {"held_out_share": 0.1}}
    child = recipe(root, "child", {"path": "root:base/1/export"}, **taken)
    pipeline.prepare(child, run_here)
    run(child)
    return Made(base, child, base_export, export_checkpoint(child))


@pytest.fixture
def made(first: Made) -> Iterator[Made]:
    """The same; what a test does to it is undone."""
    root = Path(first.base.root).parent
    shutil.copytree(root, root.with_name("kept"), copy_function=shutil.copy2)
    yield first
    shutil.rmtree(root)
    shutil.move(root.with_name("kept"), root)


def links(link: Link) -> Iterator[Link]:
    yield link
    for inner in link.made_from:
        yield from links(inner)


def told(target: str) -> str:
    return "\n".join(lineage.format_lineage(lineage.trace_lineage(target)))


def test_a_model_is_followed_through_its_parent_to_the_files_with_hashes_recipes_and_commits(
    first: Made,
) -> None:
    chain = list(links(lineage.trace_lineage(first.child_export)))
    base = [link.what for link in links(lineage.trace_lineage(first.base_export))]
    assert base == ["model", "run", "tokens", "tokenizer", "clean", "source crawl (jsonl)"]
    own = [
        "tokens",
        "tokenizer",
        *base[3:],
        *base[4:],
    ]  # its tokenizer is the base's, which has a chain of its own
    assert [link.what for link in chain] == ["model", "run", *base, *own]
    assert [chain[0].where, chain[2].where] == [first.child_export, first.base_export]
    text = told(first.child_export)
    weights = hashlib.sha256(Path(first.child_export, "model.safetensors").read_bytes()).hexdigest()
    file = hashlib.sha256(Path(first.base.data.inputs[0].path).with_name("0.jsonl").read_bytes()).hexdigest()
    for part in (
        weights[:16],
        file[:16],
        fingerprint(first.base.decisions("clean"))[:16],
        "commit ",
        "80 of 80 documents",
    ):
        assert part in text
    for missing in ("no longer", "changed", "unknown", "rewritten"):
        assert missing not in text


def test_what_occurs_twice_is_told_once(first: Made) -> None:
    text = told(first.child_export)
    assert text.count(f"tokenizer  {first.base.folder('tokenizer')}\n") == 1
    assert f"tokenizer  {first.base.folder('tokenizer')}, as above" in text  # that the child's was taken from


def test_the_chain_begins_wherever_one_stands(first: Made) -> None:
    base = first.base
    run_folder = base.folder("train")
    begins = {
        base.folder("export"): "model", f"{run_folder}/checkpoints/00000002": "checkpoint", run_folder: "run",
        base.folder("tokens"): "tokens", base.folder("tokenizer"): "tokenizer", base.folder("clean"): "clean",
    }  # fmt: skip
    for folder, what in begins.items():
        *_, source = chain = list(links(lineage.trace_lineage(folder)))
        assert chain[0].what == what
        assert source.what == "source crawl (jsonl)"


def test_a_run_that_branched_names_the_checkpoint(made: Made) -> None:
    parent = f"{made.base.folder('train')}/checkpoints/00000002"
    of = {"run": "longer", "branch_from": parent, "tokens": 4 * BATCH_TOKENS}
    branch = recipes.parse_recipe(made.base.model_dump() | {"train": made.base.train.model_dump() | of})  # type: ignore[union-attr]
    run(branch)
    chain = lineage.trace_lineage(branch.folder("train"))
    assert (chain.made_from[0].what, chain.made_from[0].where) == ("checkpoint", parent)


def test_a_newer_export_of_the_parent_is_not_taken_for_it(made: Made) -> None:
    newer = Path(made.base_export).with_name("9")
    shutil.copytree(made.base_export, newer)
    assert made.base_export in told(made.child_export)
    assert str(newer) not in told(made.child_export)


def test_what_is_gone_is_said_and_what_is_left_is_told(made: Made) -> None:
    shutil.rmtree(f"{made.base.folder('train')}/checkpoints")
    shutil.rmtree(made.base.folder("clean"))
    text = told(made.child_export)
    assert f"its checkpoint no longer exists: {made.base.folder('train')}" in text
    assert "the shards that were read no longer exist" in text
    shutil.rmtree(made.base_export)
    text = told(made.child_export)
    assert "the initial model (root:base/1/export) no longer exists" in text
    shutil.rmtree(made.child.folder("tokens"))
    text = told(made.child_export)
    assert "so its origin is unknown" in text
    tokens = json.loads(Path(made.child_export, "lineage.json").read_text())["data"]["generations"][0][
        "corpora"
    ][0]
    assert f"{sum(shard['tokens'] for shard in tokens['shards']):,} tokens" in text


def test_what_changed_is_said(made: Made) -> None:
    crawl = Path(made.base.data.inputs[0].path).parent
    os.utime(crawl / "0.jsonl", (1, 1))
    (crawl / "1.jsonl").write_text("another", encoding="utf-8")
    paper = Path(made.base_export, "lineage.json")
    paper.write_text(paper.read_text(encoding="utf-8").replace('"precision": "bf16"', '"precision": "fp32"'))
    text = told(made.child_export)
    assert "0.jsonl: sha256" in text
    assert "bytes; rewritten since then" in text
    assert "1.jsonl: has changed since then" in text
    assert "it has changed since the run began" in text
    (crawl / "1.jsonl").unlink()
    assert "1.jsonl: no longer exists" in told(made.child_export)


def test_a_section_that_was_made_again_from_other_shards_is_not_taken_for_the_one(made: Made) -> None:
    path = Path(made.base.folder("clean"), "MANIFEST.json")
    changed = json.loads(path.read_text(encoding="utf-8"))
    changed["shards"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(changed), encoding="utf-8")
    text = told(made.base_export)
    assert "the shards that were read have changed since then" in text
    assert "source crawl" not in text


def test_a_model_of_others_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    text = told(str(tmp_path))
    assert hashlib.sha256(b"x").hexdigest()[:16] in text
    assert "so its origin is unknown" in text


def test_a_parent_that_was_not_written_down_is_said(made: Made) -> None:
    paper = Path(made.child_export, "lineage.json")
    plain = json.loads(paper.read_text(encoding="utf-8"))
    del plain["code"]["parent_model"]
    paper.write_text(json.dumps(plain), encoding="utf-8")
    assert "the folder of the initial model was not recorded" in told(made.child_export)


@pytest.fixture
def server() -> Iterator[Any]:
    """A server that names one model; `.told` is what it answers, `.asked` the keys that it was shown."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            server.asked.append(self.headers.get("Authorization"))
            body = json.dumps(server.told).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_served_model_is_followed_by_what_its_server_tells(
    first: Made, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    paper = json.loads(Path(first.base_export, "lineage.json").read_text(encoding="utf-8"))
    server.told = {"data": [{"id": "base-1", "lineage": paper}]}
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    for address in (url, f"{url}/v1", f"{url}/"):
        chain = lineage.trace_lineage(address)
        assert chain.where.startswith("base-1 at ")
        assert chain.made_from == lineage.trace_lineage(first.base_export).made_from
    assert set(server.asked) == {"Bearer secret"}
    server.told = {"data": [{"id": "other", "lineage": {}}]}
    assert "the server reports no lineage" in told(url)


def test_nothing_to_follow_is_explained(
    tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound, match="no finished export"):
        lineage.trace_lineage(str(tmp_path))
    server.told = []
    with pytest.raises(InputError, match="no ctllm server answers"):
        lineage.trace_lineage(f"http://127.0.0.1:{server.server_port}")
    assert ctllm(["lineage", str(tmp_path / "none")]) == 7
    assert "give an export, a checkpoint" in capsys.readouterr().err


def test_the_verb_prints_the_tree(first: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctllm(["lineage", first.base_export]) == 0
    assert capsys.readouterr().out.rstrip("\n") == told(first.base_export)
