"""The session of every worker, under Ray or alone: from
a recipe to a trained model, resuming where the run is.

Lease, newest checkpoint, data, model, stepper, loop. All workers come to the same by themselves; the
little that one must decide for all (the token of this start) rank 0 tells. For several workers
torch.distributed is up before. Rank 0 holds the run's lease and writes its records. No Ray here: tests
run it in their own process.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from ctllm_ray.base.errors import NotFound, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Model, Train, TrainResources
from ctllm_ray.model import llama
from ctllm_ray.model.config import ModelConfig, flops_per_token, for_recipe
from ctllm_ray.tokenizer import tokenizer
from ctllm_ray.train import adapters, initial_model, objective
from ctllm_ray.train.checkpoint import lineage, resume
from ctllm_ray.train.checkpoint.resume import Start
from ctllm_ray.train.checkpoint.run_lock import RunLock
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.checkpoint.saver import Saver
from ctllm_ray.train.data import reference_log_probs
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import Corpora, open_corpora
from ctllm_ray.train.data.packed_shards import Control
from ctllm_ray.train.devices.allocator import keep_freed_memory
from ctllm_ray.train.devices.collectives import from_first
from ctllm_ray.train.hooks import Alone, Hooks
from ctllm_ray.train.loop import Loop, Parts, passes
from ctllm_ray.train.losses import head_loss
from ctllm_ray.train.objective import Objective
from ctllm_ray.train.plan.mfu import device_peak, mfu
from ctllm_ray.train.stepper import Stepper, StepperOf
from ctllm_ray.train.tracking import open_trackers, records


def train(
    recipe: Recipe, stepper_of: StepperOf, rank: int = 0, world: int = 1, hooks: Hooks | None = None
) -> RunState:
    """Trains and returns the final state. Raises `CtllmError` of many kinds, each with a remedy."""
    model, train = recipe.training()
    with ExitStack() as at_the_end:
        around = at_the_end.enter_context(Alone(recipe)) if hooks is None else hooks
        return _Session(recipe, model, train, stepper_of, rank, world, around, at_the_end).run()


class _Session:
    """One start of a run on one worker."""

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        train: Train,
        stepper_of: StepperOf,
        rank: int,
        world: int,
        hooks: Hooks,
        at_the_end: ExitStack,
    ) -> None:
        self.recipe, self.model, self.train, self.resources = recipe, model, train, recipe.resources.train
        self.stepper_of, self.rank, self.world, self.hooks = stepper_of, rank, world, hooks
        self.at_the_end = at_the_end
        self.folder = recipe.folder("train")
        self.seed = recipe.train_seed

    def run(self) -> RunState:
        """Runs to the end; returns the state."""
        still_ours = self._lease()
        set_threads(self.resources, self.world)
        if not self.resources.gpu:
            keep_freed_memory()
        start = resume.start(self.recipe, self.train, self.seed, self.rank, self.world)
        corpora = self._corpora(start)
        learnt = _objective(self.train, self.resources)
        references = reference_log_probs.open_references(self.recipe) if learnt.needs_reference else None
        batches = Batches(self.recipe, corpora, _control(learnt, corpora), references)
        # a batch that cannot be divided is reported before anything is built
        batches.share(self.rank, self.world)
        state = self._facts(start, corpora)
        if self._is_finished(start, batches.count):
            return state
        config = for_recipe(self.model, corpora.vocabulary.vocab_size, self.train.sequence_tokens)
        stepper = self.stepper_of(
            self._build_model(config, start, corpora),
            learnt.loss,
            self.train,
            self.resources,
            self.rank,
            self.world,
        )
        if start.saved is not None:
            resume.load(stepper, start.saved)
        recorder, saver = self._recorder(start, corpora), self._saver()
        parts = Parts(
            self.train, self.resources, stepper, batches, saver, recorder, self.hooks,
            restore=lambda: self._restore(stepper), still_ours=still_ours, mfu=self._mfu(config), seed=self.seed,
            is_new=start.saved is None or start.origin is not None, sums=learnt.sums,
        )  # fmt: skip
        return Loop(parts, state).run()

    def _lease(self) -> Callable[[], None]:
        """Takes the run's lock for this start. The returned function raises if
        another start took the run over."""
        if self.rank:
            return lambda: None
        lease = RunLock(self.folder, self.hooks.owner)
        self.at_the_end.callback(lease.release)
        return lease.check

    def _corpora(self, start: Start) -> Corpora:
        data = "" if start.origin is not None else start.state.data
        batch = start.state.batch
        return open_corpora(
            self.recipe, batch=batch, data=data, origin=start.origin, rank=self.rank, world=self.world
        )

    def _facts(self, start: Start, corpora: Corpora) -> RunState:
        """The state with the facts of this start, which every checkpoint carries. A first
        start also writes RUN.json."""
        parentage = {name: fact for name, fact in start.state.lineage.items() if name.startswith("parent")}
        if start.saved is None:
            parentage |= lineage.of_parent(self.model.path)
        facts = lineage.of_code() | parentage | self._begun_with(start, corpora)
        if self.rank == 0 and (start.saved is None or start.origin is not None):
            lineage.write_run(self.recipe, facts, corpora.fingerprint)
        decisions = self.recipe.decisions("train")
        return replace(start.state, seed=self.seed, data=corpora.fingerprint, recipe=decisions, lineage=facts)

    def _begun_with(self, start: Start, corpora: Corpora) -> dict[str, str]:
        """The hash of the run's initial model, if later starts need that model again."""
        if self.train.lora is None and not objective.find_objective(self.train).needs_reference:
            return {}
        result = initial_model.identity(self.model, corpora.vocabulary, self.seed)
        adapters.check_same(start.state.lineage, result, self.folder)
        return {adapters.MODEL: result}

    def _is_finished(self, start: Start, count: int) -> bool:
        """True if no training remains. Makes up for validation that a killed start left out."""
        if start.saved is None or start.origin is not None:
            return False
        state, done = start.state, start.state.batch >= count
        before = state.tokens - self.train.batch_tokens
        wanted = self.train.validation
        due = wanted and (done or passes(wanted.every_tokens, before, state.tokens))
        if due and not from_first(records.is_validated(self.folder, state.step), self.world):
            self.hooks.validate(state.step)
        return done

    def _build_model(self, config: ModelConfig, start: Start, corpora: Corpora) -> torch.nn.Module:
        """The initial model of a new run; unset weights if a checkpoint will fill it."""
        attention = self.resources.attention
        if (
            start.saved is None or self.train.lora
        ):  # a checkpoint of adapters does not contain the base weights
            model = initial_model.build_initial_model(
                self.model, config, corpora.vocabulary, self.seed, attention
            )
        else:
            model = llama.empty(config, attention=attention)
        if self.train.lora:
            adapters.adapt(model, self.train.lora, self.seed)
        if start.saved is not None:
            resume.check_shapes(model, start.saved)
        return model

    def _recorder(self, start: Start, corpora: Corpora) -> records.Recorder:
        if self.rank:
            return records.Quiet()
        next_step, settings = start.state.step + 1, self.recipe.decisions("train")
        shown = open_trackers.open_trackers(
            self.resources.trackers, self.folder, self.recipe.name, self.train.run, settings, next_step
        )
        recorder = records.Records(self.folder, next_step, shown)
        self.at_the_end.callback(recorder.close)
        _tell_start(recorder, start, self.world)
        _tell_joined(recorder, start, corpora)
        if (start.saved is None or start.origin is not None) and adapters.leaves_specials_untaught(
            self.recipe
        ):
            recorder.event("specials_untaught", step=start.state.step, **adapters.UNTAUGHT)
        return recorder

    def _saver(self) -> Saver:
        token = from_first(uuid.uuid4().hex[:8], self.world)
        kept = self.resources.keep, self.resources.keep_every_tokens
        saver = Saver(self.folder, self.rank, self.world, token, *kept)
        self.at_the_end.callback(saver.close)
        return saver

    def _restore(self, stepper: Stepper) -> RunState:
        """Loads the newest checkpoint into the stepper; returns its state."""
        result = resume.newest(self.folder, self.rank, self.world)
        if result is None:
            raise NotFound("there is no checkpoint to rewind to", where=self.folder)
        resume.load(stepper, result)
        return result.state

    def _mfu(self, config: ModelConfig) -> Callable[[float], float]:
        """A function from tokens per second to the share of all devices' peak; rank 0 computes
        it, since it records alone."""
        if self.rank:
            return lambda speed: float("nan")
        peak = device_peak(torch.device("cuda" if self.resources.gpu else "cpu")) * self.world
        flops = flops_per_token(config, self.train.sequence_tokens)
        return lambda speed: mfu(speed, flops, peak)


def set_threads(resources: TrainResources, world: int) -> None:
    """Sets the threads of a CPU worker: as in the recipe, else its part of the machine's cores."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if resources.threads:
        torch.set_num_threads(resources.threads)
    elif not resources.gpu and here > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))


def _objective(train: Train, resources: TrainResources) -> Objective:
    """The recipe's objective, with the kernel of its resources."""
    result: Any = objective.find_objective(train)
    if not resources.fused_loss:
        return result
    head_loss.check_fused(resources.gpu)
    if not hasattr(result, "fused"):
        remedy = "set resources.train.fused_loss=false"
        raise RecipeError(f"{train.objective.use} has no fused loss", where="resources.train", remedy=remedy)
    return replace(result, fused=True)


def _control(learnt: Any, corpora: Corpora) -> Control | None:
    """The control tokens of conditional pretraining, by their ids in the run's tokenizer."""
    if not getattr(learnt, "control_score", ""):
        return None
    ours = tokenizer.load_tokenizer(corpora.vocabulary.folder)
    good, bad = (ours.special_id(name) for name in ("<|good|>", "<|bad|>"))
    return Control(learnt.control_score, learnt.control_max, good, bad, learnt.control_drop_share)


def _tell_start(recorder: records.Recorder, start: Start, world: int) -> None:
    state, saved = start.state, start.saved
    if saved is None:
        recorder.event("started", step=0, workers=world)
        return
    for unfit in saved.passed_over:
        recorder.event("checkpoint_passed_over", step=state.step, folder=unfit.folder, reason=unfit.reason)
    kind = "started" if start.origin is not None else "resumed"
    recorder.event(kind, step=state.step, workers=world, checkpoint=saved.folder, tokens=state.tokens)
    if state.world != world and start.origin is None:
        recorder.event("resized", step=state.step, workers=world, workers_before=state.world)


def _tell_joined(recorder: records.Recorder, start: Start, corpora: Corpora) -> None:
    """Records shards that the checkpoint was not trained with yet."""
    if start.saved is None or start.origin is not None or start.state.data == corpora.fingerprint:
        return
    new = corpora.generations[-1]
    folders, tokens = [c.folder for c in new.corpora], sum(s.tokens for c in new.corpora for s in c.shards)
    recorder.event("data_joined", step=start.state.step, batch=new.from_batch, corpora=folders, tokens=tokens)
