"""Estimates a training run before it starts: FLOPs, steps, memory, GPU-hours, core-hours, storage, epochs.

Arithmetic over the recipe, and over the token section's manifest once there is one; nothing is started and no
torch is imported. Two figures are assumptions and say so: the MFU that the cards will reach, and what is not
measured yet of the data (bytes for each token, the share of raw text that cleaning keeps).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.model.config import (
    ALIGNMENT,
    ModelConfig,
    causal_flops_per_token,
    embedding_parameters,
    flops_per_token,
    for_recipe,
    parameters,
)
from ctllm_ray.train.plan import data_and_storage
from ctllm_ray.train.plan.memory import USABLE_SHARE, Memory, MemoryLoad, estimate_memory, most_sequences

MIB = 1 << 20


@dataclass(frozen=True)
class GpuCard:
    """Memory in bytes, as the driver reports it, and the maker's peak of dense
    bf16 tensor FLOPs per second."""

    memory_bytes: float
    peak_flops: float


#: Peaks equal those of train/plan/mfu.py; a test compares them. `cpu` is one core with AVX2 in fp32, measured
#: on the machine of docs/results.md; its memory is a placeholder.
CARDS: Mapping[str, GpuCard] = {
    "h100": GpuCard(81_559 * MIB, 989.4e12),
    "h200": GpuCard(143_771 * MIB, 989.4e12),
    "h800": GpuCard(81_559 * MIB, 989.4e12),
    "h20": GpuCard(97_871 * MIB, 148e12),
    "b200": GpuCard(183_359 * MIB, 2250e12),
    "a100": GpuCard(81_920 * MIB, 312e12),
    "a100-40": GpuCard(40_960 * MIB, 312e12),
    "a800": GpuCard(81_920 * MIB, 312e12),
    "l40s": GpuCard(46_068 * MIB, 362e12),
    "4090": GpuCard(24_564 * MIB, 165.2e12),
    "3090": GpuCard(24_576 * MIB, 71e12),
    "cpu": GpuCard(math.inf, 60e9),
}


@dataclass(frozen=True)
class Compute:
    """The training itself. Hours assume the given MFU."""

    flops_per_token: float
    causal_flops_per_token: float
    tokens: int
    steps: int
    batch_sequences: int
    micro_batches: int  # per worker and step
    mfu: float
    tokens_per_s: float
    hours: float
    gpu_hours: float

    @property
    def flops(self) -> float:
        """FLOPs of the run in PaLM's convention."""
        return self.flops_per_token * self.tokens


@dataclass(frozen=True)
class PlanStage:
    """One ZeRO stage: memory with the recipe's settings, and the maximum number of
    sequences per forward pass."""

    memory: Memory
    fits: bool
    most_sequences: int
    most_sequences_checkpointed: int


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that `ctllm plan` prints. Each of `problems` would stop the run, and names its remedy."""

    name: str
    config: ModelConfig
    parameters: int
    embedding_parameters: int
    gpu: str
    card: GpuCard
    gpus: int
    load: MemoryLoad
    chosen_stage: int
    stages: tuple[PlanStage, ...]
    compute: Compute
    work: data_and_storage.DataWork
    space: data_and_storage.Space
    groups: tuple[data_and_storage.DataGroup, ...]
    problems: tuple[str, ...]
    advice: tuple[str, ...]


def plan_training(recipe: Recipe, *, gpu: str = "", gpus: int = 0, mfu: float = 0.4) -> TrainingPlan:
    """The plan of a recipe for `gpus` GPUs of a kind; by default those of its resources, at least 8 H100.

    Raises `RecipeError` if the recipe trains nothing, the GPU is unknown, or a number is impossible.
    """
    resources, (model, train) = recipe.resources.train, recipe.training()
    kind = gpu or ("h100" if resources.gpu else "cpu")
    if kind not in CARDS:
        raise RecipeError(f"unknown GPU type {kind!r}", where="gpu", remedy=f"use one of {', '.join(CARDS)}")
    if gpus < 0 or not 0 < mfu <= 1:
        raise RecipeError(
            f"{gpus} GPUs with an MFU of {mfu:g} are not possible",
            remedy="set --gpus to at least 1, and --mfu between 0 and 1",
        )
    most = resources.workers if isinstance(resources.workers, int) else resources.workers[1]
    count = gpus or (most if most > 1 or kind == "cpu" else 8)
    tokens = data_and_storage.token_counts(recipe)
    config = for_recipe(model, data_and_storage.vocab_size(recipe, tokens), train.sequence_tokens)
    load = MemoryLoad(
        train.precision,
        train.sequence_tokens,
        resources.micro_sequences,
        resources.activation_checkpointing,
        resources.offload,
    )
    stage = 0 if resources.stepper == "torch" or kind == "cpu" else resources.zero_stage
    stages = tuple(_stage(config, load, number, count, CARDS[kind]) for number in range(4))
    compute = _compute(config, train, load, CARDS[kind], count, mfu)
    groups = data_and_storage.groups(train, tokens)
    return TrainingPlan(
        name=f"{recipe.name} {recipe.version}",
        config=config,
        parameters=parameters(config),
        embedding_parameters=embedding_parameters(config),
        gpu=kind,
        card=CARDS[kind],
        gpus=count,
        load=load,
        chosen_stage=stage,
        stages=stages,
        compute=compute,
        work=data_and_storage.work(train, tokens),
        space=data_and_storage.space(recipe, config, tokens),
        groups=groups,
        problems=(
            *_memory_problems(stages, stage, CARDS[kind]),
            *_batch_problems(train, count),
            *data_and_storage.group_problems(groups, train),
        ),
        advice=tuple(_advice(config)),
    )


def _stage(config: ModelConfig, load: MemoryLoad, stage: int, workers: int, card: GpuCard) -> PlanStage:
    memory = estimate_memory(config, load, stage, workers)
    most = [
        0 if math.isinf(card.memory_bytes) else most_sequences(config, one, stage, workers, card.memory_bytes)
        for one in (replace(load, checkpointed=False), replace(load, checkpointed=True))
    ]
    return PlanStage(memory, memory.total <= card.memory_bytes * USABLE_SHARE, most[0], most[1])


def _compute(
    config: ModelConfig, train: Train, load: MemoryLoad, card: GpuCard, gpus: int, mfu: float
) -> Compute:
    flops = flops_per_token(config, train.sequence_tokens)
    steps = math.ceil(train.tokens / train.batch_tokens)
    sequences = train.batch_tokens // train.sequence_tokens
    tokens_per_s = gpus * card.peak_flops * mfu / flops
    hours = steps * train.batch_tokens / tokens_per_s / 3600
    return Compute(
        flops_per_token=flops,
        causal_flops_per_token=causal_flops_per_token(config, train.sequence_tokens),
        tokens=steps * train.batch_tokens,
        steps=steps,
        batch_sequences=sequences,
        micro_batches=math.ceil(sequences / gpus / load.micro_sequences),
        mfu=mfu,
        tokens_per_s=tokens_per_s,
        hours=hours,
        gpu_hours=hours * gpus,
    )


def _memory_problems(stages: tuple[PlanStage, ...], chosen: int, card: GpuCard) -> list[str]:
    """Why the chosen stage does not fit, and the smallest change that does."""
    stage = stages[chosen]
    if stage.fits:
        return []
    size = (
        f"{stage.memory.total / 1e9:.1f} GB are needed, "
        f"{card.memory_bytes * USABLE_SHARE / 1e9:.1f} GB are usable"
    )
    if stage.most_sequences:
        remedy = f"set resources.train.micro_sequences={stage.most_sequences}"
    elif stage.most_sequences_checkpointed:
        most = stage.most_sequences_checkpointed
        remedy = f"set resources.train.activation_checkpointing=true and micro_sequences to at most {most}"
    else:
        remedy = "use GPUs with more memory, more GPUs with zero_stage=3, or offload the optimizer"
        for number in range(chosen + 1, 4):
            if most := stages[number].most_sequences_checkpointed:
                fitting = (
                    f"set zero_stage={number}, activation_checkpointing=true and "
                    f"micro_sequences to at most {most}"
                )
                remedy = f"set resources.train.{fitting}"
                break
    return [f"too little GPU memory at ZeRO stage {chosen}: {size}; {remedy}"]


def _batch_problems(train: Train, workers: int) -> list[str]:
    sequences = train.batch_tokens // train.sequence_tokens
    if sequences % workers == 0:
        return []
    fitting = [number for number in range(1, 2 * workers) if sequences % number == 0]
    nearest = sorted(fitting, key=lambda number: abs(number - workers))[:4]
    return [
        f"{workers} workers do not divide a batch of {sequences} sequences; use "
        f"{', '.join(map(str, sorted(nearest)))} workers, or another train.batch_tokens"
    ]


def _advice(config: ModelConfig) -> list[str]:
    if config.vocab_size % ALIGNMENT:
        rows = math.ceil(config.vocab_size / ALIGNMENT) * ALIGNMENT
        return [
            f"a vocabulary of {rows}, a multiple of {ALIGNMENT}, is faster on a GPU than {config.vocab_size}"
        ]
    return []
