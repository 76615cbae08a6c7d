"""The tokens section conserves documents and tokens, writes the same bytes each time, and names what
changed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import TokensPart
from ctllm_ray.corpus import pipeline, terminal, tokens
from ctllm_ray.corpus.encoding import encode_documents
from ctllm_ray.corpus.engine import section_run
from ctllm_ray.corpus.engine.progress import SectionProgress
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.section_run import Runner
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import manifest, reader
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.shards.tokens import TokenShard
from ctllm_ray.tokenizer import tokenizer as tokenizers
from ctllm_ray.tokenizer import train
from ctllm_ray.tokenizer.tokenizer import Tokenizer
from tests.base.test_storage_s3 import endpoint  # noqa: F401  # a fixture
from tests.corpus.conftest import fill, page, run_here

Make = Callable[..., Recipe]
PIECES = 640


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model trained on pages of the crawl's kind."""
    path = tmp_path_factory.mktemp("model") / "small.model"
    path.write_bytes(train.train([page(i) for i in range(300)], PIECES))
    return path


@pytest.fixture
def made(make: Make, crawl: Path, model: Path) -> Make:
    """A recipe with token shards over the crawl as two sources, with overrides of its `tokens`."""

    def build(root: str = "out", version: str = "1", **part: object) -> Recipe:
        inputs = [
            {"use": "jsonl", "path": f"{crawl}/{files}.jsonl", "name": n}
            for n, files in (("a", "[012]"), ("b", "[345]"))
        ]
        return make(
            root,
            version=version,
            data={"inputs": inputs, "max_error_share": 0.1},
            tokenizer={"path": str(model)},
            tokens={"held_out_share": 0.2} | part,
        )

    return build


def tokenized(recipe: Recipe, run: Runner = run_here) -> Manifest:
    """The finished tokens section of a recipe."""
    return pipeline.prepare(recipe, run)["tokens"]


def opened(recipe: Recipe, kind: str = "") -> Iterator[tuple[manifest.Shard, TokenShard]]:
    folder = recipe.folder("tokens")
    for shard in manifest.read_manifest(folder).shards:
        if shard.path.startswith(kind):
            yield shard, TokenShard.open(storage.join(folder, shard.path))


def kept(recipe: Recipe) -> dict[str, dict]:
    """The kept clean documents by id."""
    folder = recipe.folder("clean")
    rows = [
        row for _, t in reader.tables(folder, manifest.read_manifest(folder), "kept") for row in t.to_pylist()
    ]
    return {row["id"]: row for row in rows}


def shards(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of every file below the section's folder but those that say how and when it was made."""
    folder = Path(recipe.folder("tokens"))
    files = [
        f for part in ("train", "held_out", "tokenizer") for f in (folder / part).rglob("*") if f.is_file()
    ]
    files = [f for f in files if f.name != "report.json"]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_every_kept_document_is_in_one_shard_as_its_framed_ids(made: Make) -> None:
    recipe = made(scores=["document.char_count"])
    finished = tokenized(recipe)
    documents, tokenizer = kept(recipe), tokenizers.load_tokenizer(recipe.folder("tokenizer"))
    seen: list[str] = []
    for shard, held in opened(recipe):
        for i in range(len(held)):
            document, ids = documents[held.doc_id(i)], held.ids(i)
            seen.append(held.doc_id(i))
            assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
            assert ids[1:-1].tolist() == tokenizer.encode([document["text"]])[0].tolist()
            assert tokenizer.decode(ids) == document["text"]
            assert (held.text_bytes[i], held.text_chars[i]) == (
                len(document["text"].encode()),
                len(document["text"]),
            )
            assert held.score("document.char_count")[i] == document["scores"]["document.char_count"]
            assert shard.group == document["source"]
        assert (shard.rows, shard.tokens, shard.text_bytes) == (
            len(held),
            len(held.values),
            held.text_bytes.sum(),
        )
    assert sorted(seen) == sorted(documents)
    assert finished.counts["in"] == finished.counts["kept"] == len(documents)


def test_the_manifest_counts_documents_and_tokens_by_group(made: Make) -> None:
    recipe = made()
    counts = tokenized(recipe).counts
    trained = {shard.group: held for shard, held in opened(recipe, "train")}
    assert set(trained) == {"a", "b"}
    for kind, prefix in (("train", "tokens"), ("held_out", "held_out_tokens")):
        sums: dict[str, int] = {}
        for shard, held in opened(recipe, kind):
            sums[shard.group] = sums.get(shard.group, 0) + len(held.values)
        assert {
            name.partition(":")[2]: n for name, n in counts.items() if name.startswith(f"{prefix}:")
        } == sums
        assert counts[prefix] == sum(sums.values())
    assert counts["held_out"] == sum(shard.rows for shard, _ in opened(recipe, "held_out"))
    assert counts["kept"] - counts["held_out"] == sum(shard.rows for shard, _ in opened(recipe, "train"))


def test_the_section_holds_its_tokenizer_and_says_which_it_is(made: Make) -> None:
    recipe = made()
    facts = tokenized(recipe).provenance
    copy = tokenizers.load_tokenizer(storage.join(recipe.folder("tokens"), "tokenizer"))
    assert facts["tokenizer"] == copy.sha256 == tokenizers.load_tokenizer(recipe.folder("tokenizer")).sha256
    assert [int(facts[key]) for key in ("vocab_size", "bos", "eos", "pad")] == [PIECES, 1, 2, 3]
    assert "sentencepiece" in facts


def test_the_same_recipe_gives_the_same_bytes_in_any_order_of_work(made: Make) -> None:
    first, second = made("first"), made("second")
    tokenized(first)
    tokenized(second, lambda r, f, s: run_here(r, f, list(reversed(s))))
    assert shards(first) == shards(second)


def test_a_begun_section_goes_on_where_it_stopped_and_a_finished_one_is_only_read(made: Make) -> None:
    whole, begun = made("whole"), made("begun")
    tokenized(whole)

    class Killed(Exception):
        pass

    def half(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        if splits[0].section == "clean":
            yield from run_here(recipe, folder, splits)
        else:
            yield from run_here(recipe, folder, splits[:4])
            raise Killed

    with pytest.raises(Killed):
        tokenized(begun, half)
    worked: list[tuple[str, int]] = []

    def counted(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        worked.extend((split.section, split.index) for split in splits)
        yield from run_here(recipe, folder, splits)

    first = tokenized(begun, counted)
    assert worked == [("tokens", 4), ("tokens", 5)]
    assert shards(begun) == shards(whole)
    assert tokenized(begun, counted) == first
    assert len(worked) == 2


def test_documents_are_grouped_by_a_label_and_those_without_it_stand_together(made: Make) -> None:
    recipe = made(group_by="genre")
    tokenized(recipe)
    genres = {name: row["labels"]["genre"] for name, row in kept(recipe).items()}
    for shard, held in opened(recipe):
        assert {genres[held.doc_id(i)] for i in range(len(held))} == {shard.group}
    labels = pa.array(
        [{"genre": "talk"}, {"genre": None}, {"genre": ""}], pa.struct([("genre", pa.string())])
    )
    table = pa.table({"id": ["x", "y", "z"], "labels": labels})
    places = dict(tokens._places(table, TokensPart(group_by="genre", held_out_share=0), 1))
    assert {group: rows.tolist() for (_, group), rows in places.items()} == {
        "talk": [True, False, False],
        "unlabelled": [False, True, True],
    }


def test_what_is_held_out_depends_on_the_id_and_the_seed_alone() -> None:
    ids = [f"a/b.jsonl#{i}" for i in range(20_000)]
    draw = tokens.held_out(ids, 0.1, 7)
    assert tokens.held_out(ids[::-3], 0.1, 7).tolist() == draw[::-3].tolist()
    assert tokens.held_out(ids, 0.1, 8).tolist() != draw.tolist()
    assert abs(draw.mean() - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5  # four standard errors
    more = tokens.held_out(ids, 0.2, 7)
    assert (more & draw).sum() == draw.sum()
    assert not tokens.held_out(ids, 0.0, 7).any()
    assert tokens.held_out(ids, 1.0, 7).all()


def test_another_version_of_the_corpus_holds_the_same_documents_out(made: Make) -> None:
    one, other = made(), made(version="2", group_by="genre")
    stages = [{"use": "measure", "rules": [{"use": "document.char_count", "min": 90}], "genres": {}}]
    other = pipeline.parse_recipe(other.model_dump() | {"stages": stages})
    tokenized(one)
    tokenized(other)

    def held(recipe: Recipe, kind: str) -> set[str]:
        return {shard.doc_id(i) for _, shard in opened(recipe, kind) for i in range(len(shard))}

    assert held(other, "held_out") & held(one, "train") == set()
    assert held(other, "train") & held(one, "held_out") == set()
    assert held(other, "held_out") & held(one, "held_out")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"group_by": "genr"}, "genre"),
        ({"group_by": "host"}, "source"),
        ({"scores": ["char_count"]}, "document.char_count"),
    ],
)
def test_an_unknown_label_or_score_is_refused_before_anything_is_read(
    made: Make, part: dict, named: str
) -> None:
    recipe = made(**part)
    with pytest.raises(RecipeError) as caught:
        tokenized(recipe)
    assert named in caught.value.remedy
    assert not Path(recipe.root).exists()


def test_token_shards_without_a_tokenizer_are_refused(make: Make) -> None:
    with pytest.raises(RecipeError, match="but no `tokenizer`"):
        pipeline.prepare(make(tokens={"held_out_share": 0.1}), run_here)


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_clean_shard_that_is_not_what_its_manifest_says_is_named(made: Make, damage: str) -> None:
    recipe = made()
    finished = pipeline.prepare(recipe, run_here)
    shutil.rmtree(recipe.folder("tokens"))
    path = Path(recipe.folder("clean"), finished["clean"].paths("kept")[1])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content if damage == "changed" else content[:-100])
    with pytest.raises(StorageError) as caught:
        tokenized(recipe)
    assert caught.value.where == str(path)
    assert "restore the file" in caught.value.remedy


def test_another_tokens_part_under_the_same_version_names_the_fields(made: Make) -> None:
    tokenized(made())
    with pytest.raises(VersionConflict, match=r"tokens.held_out_share: 0.2 -> 0.3"):
        tokenized(made(held_out_share=0.3))


def other_model(folder: Path) -> Tokenizer:
    path = folder / "other.model"
    path.write_bytes(train.train([page(i) for i in range(300, 500)], PIECES))
    return tokenizers.load_tokenizer(str(path))


def test_a_tokenizer_that_changed_under_finished_shards_is_said(made: Make, tmp_path: Path) -> None:
    recipe = made()
    tokenized(recipe)
    other_model(tmp_path).save(recipe.folder("tokenizer"))
    with pytest.raises(VersionConflict, match="tokenizer: "):
        section_run.complete("tokens", recipe, run_here, SectionProgress.silent())


def test_a_tokenizer_that_changes_while_documents_are_encoded_is_said(made: Make, tmp_path: Path) -> None:
    recipe = made()

    def swapped(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        if splits[0].section == "tokens":
            other_model(tmp_path).save(recipe.folder("tokenizer"))
            tokens._same_tokenizer.cache_clear()
        yield from run_here(recipe, folder, splits)

    with pytest.raises(StorageError, match="tokenizer changed"):
        tokenized(recipe, swapped)


def test_clean_shards_that_were_made_anew_differently_are_said(made: Make, crawl: Path) -> None:
    recipe = made()
    tokenized(recipe)
    shutil.rmtree(recipe.folder("clean"))
    (crawl / "3.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(VersionConflict, match="clean_shards: "):
        tokenized(recipe)


def test_a_corpus_of_which_nothing_was_kept_has_no_token_shards(made: Make) -> None:
    recipe = made()
    stages = [{"use": "measure", "rules": [{"use": "document.char_count", "min": 1e6}]}]
    with pytest.raises(InputError, match="kept no document"):
        resumable_tokens(pipeline.parse_recipe(recipe.model_dump() | {"stages": stages}))


def resumable_tokens(recipe: Recipe) -> Manifest:
    pipeline.clean(recipe, run_here)
    return section_run.complete("tokens", recipe, run_here, SectionProgress.silent())


def test_a_killed_writer_leaves_nothing_that_stays(made: Make) -> None:
    recipe = made()
    place = Path(recipe.folder("tokens"), "train", "a")
    place.mkdir(parents=True)
    (place / f"{storage.TEMPORARY}abc").write_bytes(b"half a shard")
    finished = tokenized(recipe)
    files = {str(f.relative_to(recipe.folder("tokens"))) for f in place.parents[1].rglob("*.arrow")}
    assert files == {shard.path for shard in finished.shards}
    assert not list(place.parents[1].rglob(f"{storage.TEMPORARY}*"))


class Numbers:
    """A tokenizer of 70,000 pieces: the code points of a text."""

    vocab_size, document_ids = 70_000, ((69_998,), (69_999,))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([ord(c) for c in text], np.int32) for text in texts]


def test_a_large_vocabulary_takes_four_bytes_and_an_empty_text_is_its_frame() -> None:
    scores = pa.StructArray.from_arrays([pa.array([0.5, None, 1], pa.float32())], ["q"])
    documents = pa.table({"id": ["x", "y", "z"], "text": ["春天", "", "a"], "scores": scores})
    table = encode_documents.tokenize(documents, Numbers(), ["q"])  # type: ignore[arg-type]
    assert table.schema.field("ids").type == pa.large_list(pa.uint32())
    assert table["ids"].to_pylist() == [
        [69_998, 0x6625, 0x5929, 69_999],
        [69_998, 69_999],
        [69_998, 97, 69_999],
    ]
    assert table["text_bytes"].to_pylist() == [6, 0, 1]
    assert table["text_chars"].to_pylist() == [2, 0, 1]
    assert table["scores"].to_pylist() == [{"q": 0.5}, {"q": None}, {"q": 1.0}]


def test_prepare_says_which_section_it_is_in(made: Make) -> None:
    stream = io.StringIO()
    pipeline.prepare(made(), run_here, SectionProgress(stream))
    sections = [line.partition(":")[0] for line in stream.getvalue().splitlines()]
    assert list(dict.fromkeys(sections)) == ["clean", "tokenizer", "tokens"]


def test_the_screen_shows_documents_and_tokens_of_each_group(
    made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = made()
    finished = tokenized(recipe)
    terminal.tokens(finished, recipe.folder("tokens"))
    shown = capsys.readouterr().out
    rows = {line.split()[1]: line.split()[3::2] for line in shown.splitlines() if line[:3] in ("│ a", "│ b")}
    for group in ("a", "b"):
        documents, tokens_, _, _, aside = rows[group]
        sizes = [
            (s.rows, s.tokens) for s in finished.shards if s.group == group and s.path.startswith("train/")
        ]
        assert documents == f"{sum(n for n, _ in sizes):,}"
        assert tokens_ == f"{finished.counts[f'tokens:{group}']:,}"
        assert aside == f"{finished.counts[f'held_out_tokens:{group}']:,}"
    assert rows["all"][1] == f"{finished.counts['tokens']:,}"
    assert recipe.folder("tokens") in shown


def test_the_tokenizer_alone_makes_no_token_shards(made: Make) -> None:
    recipe = made()
    pipeline.prepare_tokenizer(recipe, run_here)
    assert storage.exists(storage.join(recipe.folder("tokenizer"), manifest.MANIFEST))
    assert not Path(recipe.folder("tokens")).exists()


def test_a_recipe_that_only_cleans_makes_nothing_else(make: Make) -> None:
    recipe = make()
    assert list(pipeline.prepare(recipe, run_here)) == ["clean"]
    assert sorted(path.name for path in Path(recipe.folder("clean")).parent.iterdir()) == [
        "clean",
        "recipe.yaml",
    ]


@pytest.mark.parametrize("left_bytes", [0, 150_000])
def test_a_full_disk_is_one_message_and_the_next_run_goes_on(
    made: Make, small_disk: Path, left_bytes: int
) -> None:
    calm = made("calm")
    tokenized(calm)
    full = calm.model_copy(update={"root": str(small_disk / "out")})
    pipeline.prepare_tokenizer(full, run_here)
    filler = fill(small_disk, left_bytes)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        tokenized(full)
    assert "free space" in caught.value.remedy
    assert not any(storage.TEMPORARY in name for _, _, names in os.walk(small_disk) for name in names)
    filler.unlink()
    tokenized(full)
    assert shards(full) == shards(calm)


@pytest.mark.usefixtures("endpoint")
def test_a_section_in_a_bucket_has_the_bytes_of_a_local_one(made: Make, tmp_path: Path) -> None:
    local = made()
    finished = tokenized(local)
    remote = local.model_copy(update={"root": f"s3://bucket/{tmp_path.name}"})
    assert tokenized(remote).shards == finished.shards
    for (shard, here), (_, there) in zip(opened(local), opened(remote), strict=True):
        np.testing.assert_array_equal(here.values, there.values, shard.path)
    copy = tokenizers.load_tokenizer(storage.join(remote.folder("tokens"), "tokenizer"))
    assert copy.sha256 == finished.provenance["tokenizer"]


def test_two_runs_at_the_same_time_end_with_the_same_bytes(made: Make) -> None:
    calm, twice = made("calm"), made("twice")
    tokenized(calm)
    pipeline.prepare_tokenizer(twice, run_here)
    found: list[Manifest] = []
    threads = [threading.Thread(target=lambda: found.append(tokenized(twice))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.shards for one in found] == [manifest.read_manifest(calm.folder("tokens")).shards] * 3
    assert shards(twice) == shards(calm)
