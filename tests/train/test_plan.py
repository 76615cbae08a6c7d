"""The plan of CT-LLM by hand, what does not fit, and what the token section adds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.train.plan import mfu, terminal
from ctllm_ray.train.plan.plan import CARDS, plan_training

RECIPE = str(Path(__file__).resolve().parents[2] / "jobs" / "recipes" / "ct_llm_2b.yaml")


def ct_llm(*overrides: str) -> recipes.Recipe:
    return recipes.load_recipe(RECIPE, overrides)


def test_ct_llm_by_hand() -> None:
    found = plan_training(ct_llm(), gpu="h100", gpus=64, mfu=0.5)
    assert found.parameters == 2_133_985_280
    assert found.compute.flops_per_token == 14_479_785_984
    assert found.compute.steps == 598_279  # 1,254,680,000,000 / 2,097,152 = 598,278.05
    assert found.compute.tokens_per_s == pytest.approx(64 * 34_165, rel=1e-3)  # 989.4e12 x 0.5 / 14.48e9 each
    assert found.compute.hours / 24 == pytest.approx(6.64, abs=0.01)
    assert found.compute.gpu_hours == pytest.approx(64 * 24 * 6.64, rel=2e-3)
    assert found.compute.flops == pytest.approx(1.817e22, rel=1e-3)
    assert found.compute.micro_batches == 4  # 512 sequences on 64 cards, 2 at a time
    assert found.space.checkpoint == pytest.approx(25.6e9, rel=1e-3)
    assert found.space.token_shards == pytest.approx(5.02e12, rel=1e-3)  # 125,696 pieces need 4 bytes
    assert found.problems == ()
    assert found.advice == ()


def test_shares_of_the_recipe_are_the_papers_token_counts() -> None:
    drawn = {group.name: group.drawn_tokens for group in plan_training(ct_llm()).groups}
    assert drawn["zh"] == pytest.approx(840.48e9, rel=1e-3)
    assert drawn["en"] == pytest.approx(314.88e9, rel=1e-3)
    assert drawn["code"] == pytest.approx(99.3e9, rel=3e-3)


def test_the_recipes_workers_and_cards_are_the_default() -> None:
    found = plan_training(ct_llm())
    assert (found.gpu, found.gpus, found.chosen_stage) == ("h100", 64, 1)
    assert plan_training(ct_llm("resources.train.workers=1")).gpus == 8
    small = plan_training(ct_llm("resources.train.gpu=false", "resources.train.workers=2"))
    assert (small.gpu, small.gpus, small.chosen_stage) == ("cpu", 2, 0)


def test_too_little_memory_is_told_with_the_least_change_that_fits() -> None:
    more = plan_training(ct_llm("resources.train.micro_sequences=16"))
    assert "micro_sequences=4" in more.problems[0]
    long = plan_training(ct_llm("resources.train.stepper=torch"), gpu="a100-40", gpus=8)
    assert "zero_stage=1, activation_checkpointing=true" in long.problems[0]
    assert "more memory" in plan_training(ct_llm(), gpu="3090", gpus=1).problems[0]
    again = plan_training(ct_llm(), gpu="a100-40", gpus=2)
    assert "activation_checkpointing=true and micro_sequences to" in again.problems[0]


def test_a_batch_that_does_not_divide_is_told_with_what_does() -> None:
    assert plan_training(ct_llm(), gpus=64).problems == ()
    assert (
        "7 workers do not divide a batch of 512 sequences; use 1, 2, 4, 8"
        in plan_training(ct_llm(), gpus=7).problems[-1]
    )


def token_section(root: Path, **groups: int) -> None:
    shards = [Shard(f"train/{g}/0.arrow", 10, 4 * n, 3 * n, "", n, g) for g, n in groups.items()]
    shards.append(Shard("held_out/zh/0.arrow", 10, 400, 300, "", 100, "zh"))
    facts = {"vocab_size": "64000"}
    folder = root / "ct_llm_2b" / "1" / "tokens"
    manifest.write_manifest(
        str(folder), Manifest("tokens", "c", "1", "", {}, [], {"in": 1, "kept": 1}, shards, facts)
    )


def test_the_token_section_brings_vocabulary_text_and_epochs(tmp_path: Path) -> None:
    token_section(tmp_path, zh=400_000_000_000, en=50_000_000_000, web=1)
    found = plan_training(ct_llm(f"root={tmp_path}"))
    assert found.config.vocab_size == 64_000
    assert found.work.measured
    assert found.work.clean_bytes == 3 * 450_000_000_001
    assert found.space.token_shards == 2 * 450_000_000_001  # 64,000 pieces fit two bytes
    epochs = {group.name: group.epochs for group in found.groups}
    assert epochs["zh"] == pytest.approx(2.10, abs=0.01)
    assert epochs["en"] == pytest.approx(6.30, abs=0.01)
    assert any(
        "'en' is too small for its share: 6.3 epochs, but at most 4 are allowed" in line
        for line in found.problems
    )
    assert any("no group 'code'" in line for line in found.problems)
    capped = plan_training(ct_llm(f"root={tmp_path}", "train.epoch_caps={en: 2}"))
    assert not any("'en'" in line for line in capped.problems)


def test_phases_share_out_the_tokens_between_their_ends() -> None:
    mixture = "[{shares: {a: 1.0}, until_tokens: 1000000000000}, {shares: {a: 0.5, b: 0.5}}]"
    drawn = {g.name: g.drawn_tokens for g in plan_training(ct_llm(f"train.mixture={mixture}")).groups}
    assert drawn == {"a": 1_127_340_000_000, "b": 127_340_000_000}


def test_a_vocabulary_off_the_alignment_is_advised_against() -> None:
    assert "125760" in plan_training(ct_llm("tokenizer.vocab_size=125700")).advice[0]


def test_an_unknown_card_and_a_recipe_that_trains_nothing_are_errors() -> None:
    with pytest.raises(RecipeError, match=r"(?s)'tpu'.*h100"):
        plan_training(ct_llm(), gpu="tpu")
    with pytest.raises(RecipeError, match="trains no model"):
        plan_training(ct_llm("train=null", "model=null"))


def test_peaks_are_those_that_training_measures_by() -> None:
    names = {"h100": "H100", "h200": "H200", "h800": "H800", "h20": "H20", "b200": "B200", "a100": "A100",
             "a100-40": "A100", "a800": "A800", "l40s": "L40S", "4090": "RTX 4090",
             "3090": "RTX 3090"}  # fmt: skip
    assert set(names) == set(CARDS) - {"cpu"}
    for card, name in names.items():
        assert CARDS[card].peak_flops == dict(mfu.PEAK_FLOPS)[name]


def screen(found: Any) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal.table(found))
    return console.export_text()


def test_the_screen_shows_every_part() -> None:
    text = screen(plan_training(ct_llm(), gpu="h200", gpus=7))
    for part in (
        "2,133,985,280",
        "14.48 G a token (PaLM",
        "598,279 of 512",
        "1 (recipe)",
        "problem: 7 workers",
        "zh",
    ):
        assert part in text


def test_the_screen_of_a_cpu_has_no_table_of_memory() -> None:
    text = screen(plan_training(ct_llm("resources.train.gpu=false")))
    assert "ZeRO" not in text
    assert "CPU cores" in text


def test_planning_brings_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from ctllm_ray.base.recipe import load_recipe; "
        "from ctllm_ray.train.plan import plan, terminal\n"
        f"terminal.table(plan.plan_training(load_recipe({RECIPE!r})))\n"
        "print([m for m in ('ray', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
