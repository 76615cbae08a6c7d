"""The tokenizer section: a bounded, seeded sample with the recipe's shares; resumable; nothing lost on bad
input."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sentencepiece import sentencepiece_model_pb2

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, NotFound, RecipeError, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline, sampling, tokenizer
from ctllm_ray.shards import reader
from ctllm_ray.shards.manifest import MANIFEST, Shard
from ctllm_ray.tokenizer.round_trip import HARD_STRINGS
from ctllm_ray.tokenizer.tokenizer import HuggingFace, Tokenizer, load_tokenizer
from ctllm_ray.tokenizer.train import train
from tests.corpus.conftest import WORDS, run_here

SOURCES = {"web": 300, "news": 200, "code": 100}


def text(source: str, seed: int) -> str:
    draw = random.Random(f"{source}{seed}")
    alphabet = ["def ", "    ", "return ", "x", "=", "1", "\n"] if source == "code" else [*WORDS, "\n"]
    return "".join(draw.choices(alphabet, k=draw.randrange(50, 400)))


@pytest.fixture
def clean(tmp_path: Path) -> Callable[..., Recipe]:
    """Makes the clean shards of three sources in small splits; returns the recipe with a tokenizer part."""
    inputs = []
    for source, count in SOURCES.items():
        folder = tmp_path / source
        folder.mkdir()
        for part in range(4):
            lines = [json.dumps({"text": text(source, i)}) for i in range(part, count, 4)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        inputs.append({"use": "jsonl", "path": f"{folder}/*.jsonl", "name": source})

    def build(**part: Any) -> Recipe:
        recipe = recipes.parse_recipe(
            {
                "name": "three", "version": "1", "seed": part.pop("seed", 4), "root": str(tmp_path / "out"),
                "data": {"inputs": inputs, "max_error_share": 0},
                "stages": [{"use": "measure", "rules": [{"use": "document.char_count", "min": 10}]}],
                "tokenizer": part or {"vocab_size": 700, "sample_mb": 0.1},
            }
        )  # fmt: skip
        pipeline.clean(recipe, run_here)
        return recipe

    return build


def written(recipe: Recipe) -> dict[str, bytes]:
    folder = Path(recipe.folder("tokenizer"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def report(recipe: Recipe) -> dict[str, Any]:
    return json.loads(written(recipe)["report.json"])


def shards(recipe: Recipe, source: str) -> list[Shard]:
    return tokenizer._by_source(recipe)[source]


def draw(recipe: Recipe, size_bytes: int, seed: int = 4) -> sampling.CorpusSample:
    return sampling.draw(recipe.folder("clean"), shards(recipe, "web"), seed, size_bytes, 2000)


def test_the_section_is_a_tokenizer_folder_with_a_report_and_a_manifest(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    finished = tokenizer.prepare(recipe)
    assert {*written(recipe)} == {
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja",
        "report.json", MANIFEST,
    }  # fmt: skip
    made = load_tokenizer(recipe.folder("tokenizer"))
    assert (made.vocab_size, made.sha256) == (700, finished.provenance["tokenizer"])
    assert (
        finished.counts["in"]
        == finished.counts["kept"]
        == sum(part["documents"] for part in report(recipe)["sample"].values())
    )


def test_a_second_run_only_reads_the_manifest(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    said: list[str] = []
    first = tokenizer.prepare(recipe)
    assert tokenizer.prepare(recipe, said.append) == first
    assert said == []


def test_a_run_that_was_killed_before_its_manifest_ends_with_the_same_bytes(
    clean: Callable[..., Recipe],
) -> None:
    recipe = clean()
    tokenizer.prepare(recipe)
    before = written(recipe)
    folder = Path(recipe.folder("tokenizer"))
    (folder / MANIFEST).unlink()
    (folder / "tokenizer.model").write_bytes(b"half")
    tokenizer.prepare(recipe)
    assert written(recipe) == before


def test_other_decisions_under_the_same_version_stop_and_name_what_changed(
    clean: Callable[..., Recipe],
) -> None:
    tokenizer.prepare(clean())
    with pytest.raises(VersionConflict, match=r"tokenizer\.vocab_size: 700 -> 720"):
        tokenizer.prepare(clean(vocab_size=720, sample_mb=0.1))


def test_clean_shards_that_changed_since_stop_the_run(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    tokenizer.prepare(recipe)
    path = storage.join(recipe.folder("clean"), MANIFEST)
    plain = storage.read_json(path)
    plain["shards"][0]["sha256"] = "0" * 64
    storage.write_json(path, plain)
    with pytest.raises(VersionConflict, match="clean_shards"):
        tokenizer.prepare(recipe)


def test_without_clean_shards_there_is_nothing_to_train_on(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    Path(recipe.folder("clean"), MANIFEST).unlink()
    with pytest.raises(NotFound):
        tokenizer.prepare(recipe)


def test_a_recipe_without_a_tokenizer_is_told_how_to_name_one(clean: Callable[..., Recipe]) -> None:
    recipe = clean().model_copy(update={"tokenizer": None})
    with pytest.raises(RecipeError, match="no tokenizer"):
        tokenizer.prepare(recipe)


def test_a_sample_is_as_large_as_asked_and_never_larger(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    for size in (5_000, 20_000, 60_000):
        sample = draw(recipe, size)
        assert size - 3 <= sample.bytes <= size  # a character has up to four bytes
        assert sample.bytes == sum(len(document.text.encode()) for document in sample.documents)


def test_a_sample_does_not_depend_on_the_order_of_the_shards(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    folder = recipe.folder("clean")
    there = sampling.draw(folder, shards(recipe, "web"), 4, 20_000, 2000)
    back = sampling.draw(folder, shards(recipe, "web")[::-1], 4, 20_000, 2000)
    assert there == back


def test_another_seed_draws_other_documents(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    one, other = ({document.id for document in draw(recipe, 20_000, seed).documents} for seed in (4, 5))
    assert one != other


def test_no_document_of_a_sample_is_among_the_unseen(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    everything = draw(recipe, 10**9)
    assert everything.unseen
    assert not {document.id for document in everything.documents} & {
        document.id for document in everything.unseen
    }


def test_of_many_shards_only_as_many_are_read_as_hold_plenty(
    clean: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = clean()
    opened: list[str] = []
    whole = reader.shard_tables

    def counting(uri: str, columns: list[str]) -> Iterator[Any]:
        opened.append(uri)
        return whole(uri, columns)

    monkeypatch.setattr(reader, "shard_tables", counting)
    monkeypatch.setattr(sampling, "LEAST_SHARDS", 1)
    sample = sampling.draw(recipe.folder("clean"), shards(recipe, "web"), 4, 2_000, 100)
    assert len(opened) == sample.shards_read == 1


def test_of_a_long_document_a_part_is_taken_and_counted(clean: Callable[..., Recipe]) -> None:
    sample = draw(clean(), 10_000)  # of 300 documents, each gives at most 4/300
    assert sample.cut_documents == sum(document.is_cut for document in sample.documents) > 0
    assert max(len(document.text.encode()) for document in sample.documents) <= 10_000 * 4 / 300


def test_a_source_of_a_single_document_gives_as_much_of_it_as_is_asked(tmp_path: Path) -> None:
    (tmp_path / "book.jsonl").write_text(json.dumps({"text": "春天到了。" * 10_000}), encoding="utf-8")
    inputs = [{"use": "jsonl", "path": f"{tmp_path}/book.jsonl", "name": "book"}]
    recipe = recipes.parse_recipe(
        {
            "name": "book", "version": "1", "seed": 0, "root": str(tmp_path / "out"),
            "stages": [{"use": "normalize"}],
            "data": {"inputs": inputs, "max_error_share": 0},
        }
    )  # fmt: skip
    kept = pipeline.clean(recipe, run_here).shards
    samples = [sampling.draw(recipe.folder("clean"), kept, seed, 30_000, 1000) for seed in range(40)]
    assert {len(sample.documents) + len(sample.unseen) for sample in samples} == {1}
    assert {sample.bytes for sample in samples if sample.documents} == {30_000}


def test_sources_have_the_shares_that_the_recipe_gives(clean: Callable[..., Recipe]) -> None:
    recipe = clean(vocab_size=700, sample_mb=0.04, shares={"web": 0.25, "news": 0.25, "code": 0.5})
    tokenizer.prepare(recipe)
    drawn = {name: part["bytes"] for name, part in report(recipe)["sample"].items()}
    assert drawn["web"] == pytest.approx(10_000, abs=3)
    assert drawn["news"] == pytest.approx(10_000, abs=3)
    assert drawn["code"] == pytest.approx(20_000, abs=3)


def test_without_shares_sources_have_those_of_the_shards(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    tokenizer.prepare(recipe)
    sizes = {name: sum(shard.text_bytes for shard in shards(recipe, name)) for name in SOURCES}
    for name, part in report(recipe)["sample"].items():
        assert part["bytes"] == pytest.approx(100_000 * sizes[name] / sum(sizes.values()), abs=4)


def test_a_source_too_small_for_its_share_names_the_largest_sample(clean: Callable[..., Recipe]) -> None:
    recipe = clean(vocab_size=700, sample_mb=5, shares={"web": 0.5, "news": 0.5})
    with pytest.raises(RecipeError, match="'web' has") as caught:
        tokenizer.prepare(recipe)
    assert "sample_mb to at most" in caught.value.remedy
    assert not Path(recipe.folder("tokenizer")).exists()


def test_shares_of_a_source_that_there_is_not_name_the_nearest(clean: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="'wbe'") as caught:
        tokenizer.prepare(clean(vocab_size=700, sample_mb=0.1, shares={"wbe": 1}))
    assert "web" in caught.value.remedy


def test_a_corpus_smaller_than_the_sample_gives_all_it_has_and_says_so(clean: Callable[..., Recipe]) -> None:
    recipe = clean(vocab_size=700, sample_mb=5)
    tokenizer.prepare(recipe)
    assert any("but the corpus has only" in note for note in report(recipe)["notes"])


def test_a_vocabulary_too_large_for_the_sample_leaves_nothing_behind(clean: Callable[..., Recipe]) -> None:
    recipe = clean(vocab_size=100_000, sample_mb=0.1)
    with pytest.raises(RecipeError, match="too small for 100000 pieces"):
        tokenizer.prepare(recipe)
    assert not Path(recipe.folder("tokenizer")).exists()


def test_an_existing_tokenizer_is_taken_over_and_measured(
    clean: Callable[..., Recipe], tmp_path: Path
) -> None:
    first = clean()
    tokenizer.prepare(first)
    copy = tmp_path / "own"
    load_tokenizer(first.folder("tokenizer")).save(str(copy))
    (copy / "tokenizer.model").unlink()  # what is left is a Hugging Face folder
    recipe = clean(path=str(copy)).model_copy(update={"version": "2"})
    pipeline.clean(recipe, run_here)
    finished = tokenizer.prepare(recipe)
    made = load_tokenizer(recipe.folder("tokenizer"))
    assert isinstance(made, HuggingFace)
    assert finished.counts == {"in": 0, "kept": 0}
    assert report(recipe)["groups"] == report(first)["groups"]


def test_a_tokenizer_that_is_not_there_is_an_error_that_names_it(
    clean: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="the folder has no tokenizer"):
        tokenizer.prepare(clean(path=str(tmp_path / "nowhere")))


def test_a_damaged_clean_shard_is_an_error_that_names_it(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    path = Path(recipe.folder("clean"), shards(recipe, "web")[0].path)
    path.write_bytes(b"not a shard")
    with pytest.raises(StorageError) as caught:
        tokenizer.prepare(recipe)
    assert caught.value.where == str(path)


def test_every_unseen_document_is_measured_once_each_way(clean: Callable[..., Recipe]) -> None:
    recipe = clean()
    tokenizer.prepare(recipe)
    found = report(recipe)
    for rows in found["groups"].values():
        assert sum(row["documents"] for row in rows.values()) == found["compared_documents"] > 0
    console = Console(width=160)
    with console.capture() as shown:
        tokenizer.print_report(recipe.folder("tokenizer"), console)
    assert "by source" in shown.get()


def one_source(tmp_path: Path, texts: list[str], **part: Any) -> Recipe:
    """The recipe of one file of texts, cleaned by nothing."""
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = recipes.parse_recipe(
        {
            "name": "one", "version": part.pop("version", "1"), "seed": 1, "root": str(tmp_path / "out"),
            "data": {"inputs": [{"use": "jsonl", "path": f"{tmp_path}/a.jsonl", "name": "a"}], "max_error_share": 0},
            "stages": [], "tokenizer": part or {"vocab_size": 700, "sample_mb": 0.05},
        }
    )  # fmt: skip
    pipeline.clean(recipe, run_here)
    return recipe


def without_blanks(seed: int) -> str:
    draw = random.Random(seed)
    return "。".join("".join(draw.choices(WORDS, k=8)).replace(" ", "") for _ in range(20))


def forms(recipe: Recipe) -> list[Tokenizer]:
    made = load_tokenizer(recipe.folder("tokenizer"))
    return [made, HuggingFace(made.files())]


@pytest.mark.parametrize("last", ["你好", "你好 世界", "你好▁世界▁", "▁ \ufdd0\ufdd1 \x00▁"])
def test_a_corpus_that_hardly_has_blanks_gives_a_tokenizer_that_gives_back_every_blank(
    tmp_path: Path, last: str
) -> None:
    recipe = one_source(tmp_path, [*map(without_blanks, range(300)), last])
    tokenizer.prepare(recipe)
    for form in forms(recipe):
        assert "▁" in form.pieces
        for text in ("你好 世界", "你好▁世界", *HARD_STRINGS):
            assert form.decode(form.encode([text])[0]) == text
    found = report(recipe)["round_trip"]
    assert found.pop("documents") > 0
    assert found == {"changed_documents": 0, "hard_strings": len(HARD_STRINGS), "changed_hard_strings": 0}
    assert not any("comes back as" in note for note in report(recipe)["notes"])


def as_trained_before(texts: Sequence[str], vocab_size: int) -> bytes:
    """A model without a piece for the space, as such a corpus gave before."""
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(train(texts, vocab_size))
    for piece in model.pieces:
        if "▁" in piece.piece:
            piece.piece = f"{piece.piece.replace('▁', '〇')}{len(piece.piece)}"
    return model.SerializeToString()


def test_a_trained_tokenizer_that_loses_a_blank_does_not_finish_and_names_the_string(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "train", as_trained_before)
    recipe = one_source(tmp_path, [*map(without_blanks, range(300)), "你好"])
    with pytest.raises(InputError, match="'你好 世界' comes back as '你好▁世界'"):
        tokenizer.prepare(recipe)
    assert not Path(recipe.folder("tokenizer")).exists()


def test_a_held_out_document_that_does_not_come_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "train", as_trained_before)
    recipe = one_source(tmp_path, [f"{without_blanks(seed)} 完" for seed in range(300)])
    with pytest.raises(InputError, match=r"完' comes back as '.*▁完'") as caught:
        tokenizer.prepare(recipe)
    assert caught.value.where.startswith("document ")


def test_an_existing_tokenizer_that_loses_blanks_is_taken_over_with_a_note(tmp_path: Path) -> None:
    texts = [f"{without_blanks(seed)} 完" for seed in range(300)]
    (tmp_path / "earlier.model").write_bytes(as_trained_before(texts, 700))
    recipe = one_source(tmp_path, texts, path=str(tmp_path / "earlier.model"))
    tokenizer.prepare(recipe)
    found = report(recipe)
    assert found["round_trip"]["changed_documents"] == found["round_trip"]["documents"] > 0
    assert found["round_trip"]["changed_hard_strings"] > 0
    (note,) = (note for note in found["notes"] if "comes back as" in note)
    assert f"changes {found['compared_documents']} of {found['compared_documents']} documents" in note
    assert forms(recipe)[0].sha256 == hashlib.sha256((tmp_path / "earlier.model").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("国家发展经济，人民生活。", "Simplified"),
        ("國家發展經濟，人民生活。", "Traditional"),
        ("天地人日月山水", "Han of both scripts"),
        ("The quick brown fox 跑。", "Latin"),
        ("return x  # 返回计算结果 of the sum", "Chinese and Latin"),
        ("これはペンです。漢字", "Japanese"),
        ("Привет, мир", "other letters"),
        ("123 !!", "no letters"),
        ("", "no letters"),
    ],
)
def test_the_script_of_a_document(document: str, expected: str) -> None:
    assert tokenizer.script(document) == expected


def test_a_tokenizer_that_is_not_there_is_told_before_anything_is_cleaned(tmp_path: Path) -> None:
    plain = {
        "name": "t", "version": "1", "seed": 1, "root": str(tmp_path), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "none.jsonl"}], "max_error_share": 0},
        "tokenizer": {"path": str(tmp_path / "absent")},
    }  # fmt: skip
    with pytest.raises(InputError, match="the folder has no tokenizer"):
        pipeline.prepare(recipes.parse_recipe(plain), lambda *_: pytest.fail("nothing is to be worked"))
