"""Terminal output of `ctllm plan`."""

from __future__ import annotations

import math

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ctllm_ray.train.plan.data_and_storage import (
    BYTES_PER_TOKEN,
    CLEAN_MB_PER_S,
    KEPT_SHARE,
    TOKENIZE_MB_PER_S,
)
from ctllm_ray.train.plan.memory import USABLE_SHARE
from ctllm_ray.train.plan.plan import PlanStage, TrainingPlan


def print_plan(plan: TrainingPlan) -> None:
    """Prints a plan."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=140)
    console.print(table(plan))


def table(plan: TrainingPlan) -> Group:
    """A plan as tables: the run, memory by ZeRO stage, the groups of the mixture, and problems."""
    parts: list[Table | Text] = [_facts(plan)]
    if math.isfinite(plan.card.memory_bytes):
        parts += [Text(), _memory(plan)]
    parts += [Text(), _mixture(plan)]
    notes = [Text(f"advice: {line}") for line in plan.advice]
    notes += [Text(f"problem: {line}", style="bold red") for line in plan.problems]
    return Group(*parts, *([Text(), *notes] if notes else []))


def _facts(plan: TrainingPlan) -> Table:
    config, compute, work, space = plan.config, plan.compute, plan.work, plan.space
    cards = "CPU cores" if plan.gpu == "cpu" else f"{plan.gpu} cards"
    card_hours = "core-hours" if plan.gpu == "cpu" else "GPU-hours"
    shape = f"{config.layers} layers, {config.width} wide, {config.heads} heads, FFN {config.ffn_width}"
    source = "measured" if work.measured else f"assumed: {BYTES_PER_TOKEN} bytes a token"
    result = Table(title=plan.name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (
        ("model", f"{shape}, vocabulary {config.vocab_size:,}, context {config.context_tokens:,}"),
        ("parameters", f"{plan.parameters:,}, of which {plan.embedding_parameters:,} embeddings"),
        (
            "FLOPs",
            f"{_flops(compute.flops_per_token)} a token (PaLM: 6 x matmul parameters + 12 LHQT; "
            f"{_flops(compute.causal_flops_per_token)} with causal attention), {compute.flops:.3g} in all",
        ),
        (
            "steps",
            f"{compute.steps:,} of {compute.batch_sequences:,} sequences of {plan.load.sequence_tokens:,}: "
            f"{compute.tokens:,} tokens, {compute.micro_batches} micro-batches a worker",
        ),
        (
            "time",
            f"{_span(compute.hours)} on {plan.gpus} {cards} at {compute.mfu:.0%} MFU (assumed): "
            f"{compute.tokens_per_s:,.0f} tokens/s, {_hours(compute.gpu_hours)} {card_hours}",
        ),
        (
            "text",
            f"{_size(work.clean_bytes)} clean ({source}), "
            f"{_size(work.raw_bytes)} raw if cleaning keeps {KEPT_SHARE:.0%}",
        ),
        (
            "preparing",
            f"{_hours(work.clean_core_hours)} core-hours of cleaning at {CLEAN_MB_PER_S:g} MB/s, "
            f"{_hours(work.tokenize_core_hours)} of tokenising at {TOKENIZE_MB_PER_S:g} MB/s",
        ),
        (
            "storage",
            f"clean shards {_size(space.clean_shards)}, token shards {_size(space.token_shards)}, "
            f"{space.checkpoints} checkpoints of {_size(space.checkpoint)}, export {_size(space.export)}: "
            f"{_size(space.total)}",
        ),
    ):
        result.add_row(name, value)
    return result


def _memory(plan: TrainingPlan) -> Table:
    usable = plan.card.memory_bytes * USABLE_SHARE
    kept = "computed again" if plan.load.checkpointed else "kept"
    result = Table(
        "ZeRO",
        *("weights", "gradients", "optimizer", "buffers", "activations", "logits", "all", "fits"),
        "sequences that fit",
        "with checkpointing",
        title=f"Memory of one {plan.gpu}, {plan.gpus} of them, micro-batch of {plan.load.micro_sequences}, "
        f"activations {kept}; {_size(usable)} can be used",
        title_justify="left",
    )
    for column in result.columns[1:]:
        column.justify = "right"
    for stage in plan.stages:
        chosen = stage.memory.stage == plan.chosen_stage
        result.add_row(*_row(stage, chosen), style="bold" if chosen else "")
    return result


def _row(stage: PlanStage, chosen: bool) -> list[str]:
    memory = stage.memory
    parts = (
        memory.weights,
        memory.gradients,
        memory.optimizer,
        memory.buffers,
        memory.activations,
        memory.logits,
    )
    return [
        f"{memory.stage}{' (recipe)' if chosen else ''}",
        *map(_size, parts),
        _size(memory.total),
        "yes" if stage.fits else "no",
        str(stage.most_sequences),
        str(stage.most_sequences_checkpointed),
    ]


def _mixture(plan: TrainingPlan) -> Table:
    result = Table(
        "group", "tokens drawn", "share", "tokens there", "epochs", title="Mixture", title_justify="left"
    )
    for column in result.columns[1:]:
        column.justify = "right"
    whole = sum(group.drawn_tokens for group in plan.groups)
    for group in plan.groups:
        there = f"{group.there_tokens:,}" if group.there_tokens else "not known yet"
        epochs = "" if math.isnan(group.epochs) else f"{group.epochs:.2f}"
        result.add_row(
            group.name, f"{group.drawn_tokens:,.0f}", f"{group.drawn_tokens / whole:.1%}", there, epochs
        )
    return result


def _size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} TB" if count < 1000 else f"{count:,.0f} TB"


def _flops(count: float) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _hours(count: float) -> str:
    """12,751.5, or two digits of what is less than one: never 0.0 for something."""
    return f"{count:,.1f}" if count >= 1 or not count else f"{count:.2g}"


def _span(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.1f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
