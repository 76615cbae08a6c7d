"""What a person can get wrong about a training run is told at once, by name, and loses nothing that was
there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, InputError, NotFound, RecipeError, StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import folder, llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.tokenizer.tokenizer import SentencePiece, load_tokenizer
from ctllm_ray.tokenizer.train import train as trained
from ctllm_ray.train import session
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.checkpoint.export import export_checkpoint
from ctllm_ray.train.data.corpora import open_corpora
from ctllm_ray.train.data.data_log import DATA
from ctllm_ray.train.data.inspect_batch import inspect_batch
from ctllm_ray.train.plan.plan import plan_training
from ctllm_ray.train.ray import launch
from ctllm_ray.train.report.run_facts import collect_facts
from tests.train.test_inherit import TEXTS
from tests.train.tiny_runs import BATCH_TOKENS, FACTS, VOCABULARY, Around, last, recipe, run, write_tokens

VALIDATED = {"validation": {"every_tokens": BATCH_TOKENS * 2}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tokens_of(of: Recipe) -> Path:
    return Path(of.folder("tokens"))


def held_out(of: Recipe) -> Path:
    return next((tokens_of(of) / "held_out").rglob("*.arrow"))


# --- shards
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["one byte", "missing"])
def test_a_held_out_shard_that_is_not_what_it_was_is_named_before_the_first_step(
    tmp_path: Path, damage: str
) -> None:
    of = recipe(tmp_path, **VALIDATED)
    shard = held_out(of)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content) if damage == "one byte" else shard.unlink()
    around = Around()
    with pytest.raises(InputError) as caught:
        session.train(of, around.stepper_of, hooks=around)
    assert caught.value.where == str(shard)
    assert "ctllm prepare" in caught.value.remedy
    assert not around.steppers


def test_held_out_shards_do_not_matter_to_a_run_that_is_not_validated(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    held_out(of).unlink()
    open_corpora(of)


def test_held_out_documents_that_are_not_there_are_missed_at_the_start(tmp_path: Path) -> None:
    elsewhere = {"validation": VALIDATED["validation"] | {"corpora": [str(tmp_path / "nowhere")]}}
    with pytest.raises(NotFound, match="has not finished"):
        open_corpora(recipe(tmp_path, **elsewhere))
    of = recipe(tmp_path, **VALIDATED)
    plain = storage.read_json(str(tokens_of(of) / "MANIFEST.json"))
    plain["shards"] = [shard for shard in plain["shards"] if shard["path"].startswith("train/")]
    storage.write_json(str(tokens_of(of) / "MANIFEST.json"), plain)
    with pytest.raises(InputError, match="no held-out documents"):
        open_corpora(of)


def test_a_folder_of_shards_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    own = str(tmp_path / "t" / "1" / "tokens")
    with pytest.raises(RecipeError, match="listed twice"):
        open_corpora(recipe(tmp_path, corpora=[own, own]))


def test_a_manifest_that_counts_other_rows_than_its_shard_has_names_the_shard(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    path = tokens_of(of) / "MANIFEST.json"
    plain = json.loads(path.read_text())
    changed = next(shard for shard in plain["shards"] if shard["path"].startswith("train/web"))
    changed["rows"] -= 1
    path.write_text(json.dumps(plain))
    with pytest.raises(StorageError, match="but its manifest says") as caught:
        run(of, 1)
    assert caught.value.where == str(tokens_of(of) / changed["path"])


def test_a_data_file_that_is_half_written_is_to_be_restored_not_deleted(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    open_corpora(of)
    path = Path(of.folder("train")) / DATA
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match="not valid JSON") as caught:
        open_corpora(of, batch=3)
    assert "delete" not in caught.value.remedy


def test_shards_that_are_not_there_are_missed_before_ray_starts(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    (tokens_of(of) / "MANIFEST.json").unlink()
    with pytest.raises(NotFound, match="has not finished"):
        launch.run_training(of)
    assert not ray.is_initialized()


def test_a_root_that_cannot_be_written_is_told_before_ray_starts(tmp_path: Path) -> None:
    of = recipe(tmp_path)
    Path(of.folder("train")).write_text("a file where the run's folder would be")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        launch.run_training(of)
    assert of.folder("train") in caught.value.where
    assert not ray.is_initialized()


# --- vocabulary
# -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    return SentencePiece(trained(TEXTS, 700))


@pytest.mark.parametrize("change", [{"tokenizer": "e" * 64}, {"vocab_size": str(VOCABULARY)}])
def test_a_tokenizer_that_did_not_make_the_shards_beside_it_is_refused(
    tmp_path: Path, tokenizer: SentencePiece, change: dict[str, str]
) -> None:
    folder_of_tokens = tmp_path / "t" / "1" / "tokens"
    facts = FACTS | {"tokenizer": tokenizer.sha256, "vocab_size": str(tokenizer.vocab_size)}
    tokenizer.save(str(folder_of_tokens / "tokenizer"))
    write_tokens(folder_of_tokens, facts=facts)
    open_corpora(recipe(tmp_path))
    write_tokens(folder_of_tokens, facts=facts | change)
    with pytest.raises(InputError, match="not the one that made them"):
        open_corpora(recipe(tmp_path))


def test_a_folder_with_settings_of_a_tokenizer_and_no_pieces_has_none(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    tokenizer.save(str(tmp_path))
    for name in ("tokenizer.json", "tokenizer.model"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"^the folder has no tokenizer"):
        load_tokenizer(str(tmp_path))


def test_a_model_folder_whose_settings_contradict_each_other_is_an_error_of_one_line(tmp_path: Path) -> None:
    config = ModelConfig(1, 32, 2, 2, 16, 64, 100, 64)
    folder.save_model(llama.build(config, seed=1), config, str(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": 3}))
    with pytest.raises(InputError) as caught:
        llama.load(str(tmp_path))
    assert "\n" not in caught.value.what
    assert caught.value.where == str(tmp_path)


# --- checkpoints
# ------------------------------------------------------------------------------------------------------


def without_batch(plain: dict[str, Any]) -> None:
    del plain["state"]["batch"]


def batch_as_text(plain: dict[str, Any]) -> None:
    plain["state"]["batch"] = "7"


def another_format(plain: dict[str, Any]) -> None:
    plain["format"] = 99


def no_files(plain: dict[str, Any]) -> None:
    plain["files"] = {}


@pytest.mark.parametrize("damage", [without_batch, batch_as_text, another_format, no_files])
def test_a_state_that_says_less_than_it_must_is_passed_over(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    of = recipe(tmp_path, 4, {"checkpoint_s": 0.001})
    run(of, 2)
    before = last(of).step
    run(of, 2)
    newest = last(of)
    assert newest.step > before
    path = Path(newest.folder) / checkpoint.CHECKPOINT
    plain = json.loads(path.read_text())
    damage(plain)
    path.write_text(json.dumps(plain))
    found = last(of)
    assert found.step < newest.step
    assert [known.folder for known in found.passed_over] == [newest.folder]


# --- recipes
# ----------------------------------------------------------------------------------------------------------

MIXTURE = [{"shares": {"web": 0.5, "books": 0.4}}]
SCHEDULE = {"use": "wsd", "peak_rate": 0.003, "warmup_tokens": BATCH_TOKENS}


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"seqence_tokens": 5}, "did you mean 'sequence_tokens'"),
        ({"schedule": SCHEDULE | {"peakrate": 1}}, "did you mean 'peak_rate'"),
        (
            {"schedule": {"use": "cosine", "peak_rate": 0.1, "warmup_token": 9}},
            "'warmup_token' is not an option\n  where:  recipe\n  remedy: did you mean 'warmup_tokens'",
        ),
        ({"schedule": SCHEDULE | {"use": "cosin"}}, "did you mean 'cosine'"),
        ({"schedule": SCHEDULE | {"min_share": 0}}, "an exponential decay cannot end at zero"),
        ({"packing": "bestfit"}, "did you mean 'best_fit'"),
        ({"spikes": {"polcy": "skip"}}, "did you mean 'policy'"),
        ({"objective": {"use": "pretrain", "contol_score": "x"}}, "did you mean 'control_score'"),
        ({"objective": {"use": "pretran"}}, "did you mean 'pretrain'"),
        ({"mixture": [{"share": {"web": 1}}]}, "did you mean 'shares'"),
        ({"mixture": MIXTURE}, "the shares sum to 0.9, not 1"),
        ({"mixture": []}, "phases with rising `until_tokens`"),
        ({"epoch_caps": {"wed": 2}}, "'wed', which no mixture has: books, web"),
        ({"batch_tokens": 100}, "batch_tokens 100 is not a multiple of sequence_tokens 16"),
        ({"schedule": SCHEDULE | {"decay_tokens": BATCH_TOKENS * 100}}, "longer than the run"),
        ({"schedule": SCHEDULE | {"peak_rate": float("inf")}}, "finite"),
        ({"run": "a/b"}, "train.run"),
    ],
)
def test_a_training_part_that_cannot_be_used_is_told_in_a_few_words(
    tmp_path: Path, train: dict, says: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, **train)
    assert says in str(caught.value)
    assert len(caught.value.what) < 200


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"micro_sequence": 5}, "did you mean 'micro_sequences'"),
        ({"workers": 0}, "'resources.train.workers': "),
        ({"stepper": "tourch"}, "did you mean 'torch'? valid names: deepspeed, torch"),
        ({"trackers": ["mlflo"]}, "did you mean 'mlflow'? valid names: mlflow, swanlab, wandb"),
    ],
)
def test_resources_that_cannot_be_used_are_told_by_their_place(
    tmp_path: Path, resources: dict, says: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, resources=resources)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("workers", "says"),
    [(3, "divides it: 1, 2, 4"), ((3, 3), "among 3"), ((3, 2), "the minimum 3 is larger")],
)
def test_workers_that_cannot_share_a_batch_are_refused_before_ray_starts(
    tmp_path: Path, workers: int | tuple[int, int], says: str
) -> None:
    of = recipe(tmp_path, resources={"workers": workers})
    with pytest.raises(CtllmError) as caught:
        launch.run_training(of)
    assert says in str(caught.value)
    assert not ray.is_initialized()


def test_sequences_longer_than_the_context_are_refused_before_ray_starts(tmp_path: Path) -> None:
    of = recipe(tmp_path, tokens=8192, batch_tokens=1024, sequence_tokens=1024)
    with pytest.raises(RecipeError, match="do not fit the model's context") as caught:
        launch.run_training(of)
    assert "model.context_tokens=1024" in caught.value.remedy
    assert not ray.is_initialized()


# --- looking at a run
# -------------------------------------------------------------------------------------------------


def test_a_recipe_that_trains_nothing_has_neither_batches_nor_a_report(tmp_path: Path) -> None:
    of = recipe(tmp_path).model_copy(update={"train": None})
    for look in (lambda: inspect_batch(of, 0), lambda: collect_facts(of), lambda: export_checkpoint(of)):
        with pytest.raises(RecipeError, match="trains no model"):
            look()


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_there_is_not_is_told(tmp_path: Path, rank: int, world: int) -> None:
    with pytest.raises(RecipeError, match=f"rank {rank} does not exist: there are {world} workers"):
        inspect_batch(recipe(tmp_path), 0, rank, world)


def test_the_export_of_a_step_without_a_checkpoint_names_those_that_have_one(tmp_path: Path) -> None:
    of = recipe(tmp_path, 2)
    run(of)
    with pytest.raises(NotFound, match="no checkpoint of step 99") as caught:
        export_checkpoint(of, 99)
    assert caught.value.remedy.endswith("2")


@pytest.mark.parametrize("wrong", [{"gpus": -1}, {"mfu": 0.0}, {"mfu": 1.5}])
def test_a_plan_for_impossible_cards_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(RecipeError, match="are not possible"):
        plan_training(recipe(tmp_path), gpu="h100", **wrong)
