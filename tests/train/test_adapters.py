"""LoRA: what is frozen stays as it was, what is saved is the adapters, what is exported is the model they
make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ctllm_ray.base.errors import RecipeError, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.base.recipe_training import Lora
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig, for_recipe
from ctllm_ray.tokenizer import train as tokenizers
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.train import adapters, session
from ctllm_ray.train.checkpoint.export import export_checkpoint
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.checkpoint.saver import Saver
from ctllm_ray.train.data import reference_log_probs
from ctllm_ray.train.data.corpora import look
from ctllm_ray.train.report import progress
from ctllm_ray.train.tracking import records
from tests.train import pair_runs, talk_runs, test_export
from tests.train.tiny_runs import Around, assert_same_model, last, run

CONFIG = ModelConfig(2, 32, 4, 2, 8, 64, 128, 64)
IDS = torch.arange(8, 40)[None]
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.2, "targets": ["q_proj", "down_proj"]}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def adapted(seed: int = 3, **options: Any) -> llama.LlamaForCausalLM:
    model = llama.build(CONFIG, 5)
    adapters.adapt(model, Lora.model_validate({"rank": 4, "alpha": 8.0} | options), seed)
    return model


def ready(root: Path, **options: Any) -> Recipe:
    """A DPO run under LoRA whose reference is computed."""
    of = pair_runs.recipe(root, **({"lora": LORA} | options))
    reference_log_probs.complete(of, reference_log_probs.here)
    return of


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_an_adapted_model_begins_as_the_model_it_adapts() -> None:
    assert torch.equal(adapted()(IDS).logits, llama.build(CONFIG, 5)(IDS).logits)


@pytest.mark.parametrize(
    ("objective", "lora", "is_told"),
    [("pretrain", LORA, True), ("sft", LORA, False), (None, LORA, False), ("pretrain", None, False)],
)
def test_a_run_says_that_a_base_without_trained_marks_of_turns_will_not_end_its_answers(
    tmp_path: Path, objective: str | None, lora: Any, is_told: bool
) -> None:
    pair_runs.write_model(tmp_path / "model")
    if objective:
        made_by = {"recipe": {"train": {"objective": {"use": objective}}}}
        (tmp_path / "model" / "lineage.json").write_text(json.dumps(made_by))
    plain = talk_runs.recipe(tmp_path, batches=2, lora=lora).model_dump(mode="json")
    of = parse_recipe(plain | {"model": {"path": str(tmp_path / "model")}})
    run(of)
    told = [event for event in records.read_events(of.folder("train")) if event.kind == "specials_untaught"]
    assert [event.facts for event in told] == ([adapters.UNTAUGHT] if is_told else [])
    assert all("answers will hardly ever end" in progress.sentence(event) for event in told)


def test_adapters_are_a_function_of_the_seed_and_their_name() -> None:
    one, same, other = (trained_state(adapted(seed)) for seed in (3, 3, 4))
    downs = [name for name in one if "lora_A" in name]
    assert len(downs) == 7 * CONFIG.layers
    assert all(
        torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in downs
    )
    assert len({one[name][0, 0].item() for name in downs}) == len(downs)


def test_only_adapters_of_the_named_matrices_are_trained() -> None:
    names = trained_state(adapted(targets=("v_proj",)))
    assert names
    assert all(".v_proj.lora_" in name for name in names)


@pytest.mark.parametrize("targets", [("q_proj",), ("o_proj", "down_proj", "gate_proj")])
def test_the_merged_model_gives_the_logits_of_the_adapted_one(targets: tuple[str, ...]) -> None:
    model = adapted(targets=targets)
    with torch.no_grad():
        for parameter in trained_state(model).values():
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    held = {name: parameter.detach() for name, parameter in model.named_parameters()}
    lora = Lora.model_validate({"rank": 4, "alpha": 8.0, "targets": targets})
    weights = adapters.merge_adapters(llama.build(CONFIG, 5), lora, held.__getitem__)
    merged = llama.empty(CONFIG)
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(weights(name))
        assert float((merged(IDS).logits - llama.build(CONFIG, 5)(IDS).logits).abs().max()) > 1e-2
        torch.testing.assert_close(merged(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_holds_the_adapters_alone_and_the_frozen_weights_never_move(tmp_path: Path) -> None:
    of, around = ready(tmp_path), Around()
    session.train(of, around.stepper_of, hooks=around)
    names = {name.removeprefix("model.") for name in last(of).names if name.startswith("model.")}
    module = around.steppers[0].module
    assert names == trained_state(module).keys()
    begun = llama.load(of.training()[0].path)
    frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    assert len(frozen) == len(dict(begun.named_parameters()))
    assert all(
        torch.equal(p, begun.get_parameter(name.replace(".base_layer", ""))) for name, p in frozen.items()
    )


@pytest.mark.parametrize("stops", [[1], [4], [2, 3]])
def test_a_resumed_run_under_dropout_equals_one_that_never_stopped(tmp_path: Path, stops: list[int]) -> None:
    whole, cut = ready(tmp_path / "whole"), ready(tmp_path / "cut")
    _, losses, rows = run(whole)
    found: list[tuple[float, bytes]] = []
    for batches in [*stops, 10**9]:
        _, *diary = run(cut, batches)
        found += zip(*diary, strict=True)
    assert found == list(zip(losses, rows, strict=True))
    assert_same_model(whole, cut)


def test_the_weights_of_a_checkpoint_are_the_merged_ones(tmp_path: Path) -> None:
    of, around = ready(tmp_path), Around()
    session.train(of, around.stepper_of, hooks=around)
    weights = adapters.weights_of(of, look(of).vocabulary, last(of))
    merged, module = llama.empty(pair_runs.CONFIG), around.steppers[0].module.eval()
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(weights(name))
        torch.testing.assert_close(merged(IDS).logits, module(IDS).logits, rtol=1e-5, atol=1e-6)


def test_an_export_is_the_merged_model_as_transformers_loads_it(tmp_path: Path) -> None:
    tokenizer = SentencePiece(tokenizers.train(test_export.TEXTS, test_export.PIECES))
    plain = test_export.recipe(tmp_path, tokenizer).model_dump(mode="json")
    plain["train"]["lora"] = LORA
    of = parse_recipe(plain)
    (shape, train), saver = of.training(), Saver(of.folder("train"), 0, 1, "a", 9, 0)
    model = llama.build(for_recipe(shape, tokenizer.vocab_size, 32), of.seed)
    assert train.lora is not None
    adapters.adapt(model, train.lora, of.seed)
    with torch.no_grad():
        for parameter in trained_state(model).values():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    saver.save(RunState(step=3), ((f"model.{n}", p.detach()) for n, p in trained_state(model).items()))
    saver.close()
    loaded = AutoModelForCausalLM.from_pretrained(export_checkpoint(of, precision="fp32"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model.eval()(IDS).logits, rtol=1e-5, atol=1e-5)


def test_fine_tuning_with_adapters_resumes_and_changes_nothing_else(tmp_path: Path) -> None:
    whole, cut = (talk_runs.recipe(tmp_path / name, lora=LORA) for name in ("whole", "cut"))
    _, losses, _ = run(whole)
    found = [loss for batches in (3, 10**9) for loss in run(cut, batches)[1]]
    assert found == losses
    assert_same_model(whole, cut)
    names = last(whole).names
    assert all(".lora_" in name for name in names)
    assert all(
        last(whole).tensor(name).any() for name in names if name.startswith("model.") and "lora_B" in name
    )


def test_a_model_that_changed_under_its_adapters_stops_the_run_and_the_export(tmp_path: Path) -> None:
    of = ready(tmp_path, objective={"use": "dpo"})
    run(of, 2)
    pair_runs.touch_model(tmp_path / "model")
    with pytest.raises(VersionConflict, match=r"out of date, .*\n    model: "):
        run(of)
    with pytest.raises(VersionConflict, match="the initial model of this run has changed"):
        adapters.weights_of(of, look(of).vocabulary, last(of))


def test_a_whole_run_cannot_go_on_from_adapters(tmp_path: Path) -> None:
    stable = {"use": "wsd", "peak_rate": 0.001, "warmup_tokens": 0}
    of = ready(tmp_path, schedule=stable)
    run(of, 2)
    parent = last(of).folder
    with pytest.raises(StorageError, match="the checkpoint has no tensor"):
        run(pair_runs.recipe(tmp_path, run="whole", branch_from=parent, schedule=stable))


@pytest.mark.parametrize("wrong", [{"targets": ["lm_head"]}, {"targets": []}, {"rank": 0}, {"dropout": 1.0}])
def test_options_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        pair_runs.recipe(tmp_path, lora=LORA | wrong)
