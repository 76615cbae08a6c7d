"""Estimates the cost of a sweep before it starts: trials, tokens, FLOPs, hours, storage.

Hours come from the trials of this sweep that ended, where there are any; until then from FLOPs and the share
of the device's peak that training is taken to reach, as `ctllm plan` does, to which a small model on a big
card does not come.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ctllm_ray.html_report import html_page
from ctllm_ray.mixture.plan import SweepPlan
from ctllm_ray.mixture.results import Trial
from ctllm_ray.model.config import flops_per_token, for_recipe, parameters
from ctllm_ray.train.plan import data_and_storage
from ctllm_ray.train.plan.plan import CARDS

MFU = 0.4  # assumption
LOG_BYTES = 50_000  # storage of a trial's records, plus as much per thousand steps; its checkpoint is deleted


@dataclass(frozen=True)
class Forecast:
    """For the remaining runs, unless a field says all. `measured` is False if the speed is an assumption."""

    trials: int  # mixtures
    replicates: int  # runs per mixture
    left: int
    at_once: int
    parameters: int
    trial_tokens: int
    tokens: int
    flops: float
    measured: bool
    hours: float
    device_hours: float
    peak_bytes: float  # during the sweep: one checkpoint per running trial, two while one is written
    left_bytes: float  # at the end, of all trials


def forecast_sweep(plan: SweepPlan, ended: Sequence[Trial]) -> Forecast:
    """The cost of a sweep after these trials have ended."""
    trial, width = plan.trial(0), plan.recipe.resources.sweep
    assert trial.train is not None
    assert trial.model is not None
    train = trial.train
    config = for_recipe(
        trial.model,
        data_and_storage.vocab_size(trial, data_and_storage.token_counts(trial)),
        train.sequence_tokens,
    )
    steps = -(-train.tokens // train.batch_tokens)
    tokens = steps * train.batch_tokens
    each_flops = flops_per_token(config, train.sequence_tokens) * tokens
    done = {(trial.number, trial.replicate) for trial in ended}
    left = sum(run not in done for run in plan.runs)
    at_once = min(max(1, left), width.concurrent or max(1, (os.cpu_count() or 1) // width.cpus))
    peak = CARDS["h100"].peak_flops * width.gpus or CARDS["cpu"].peak_flops * width.cpus
    known = [each.seconds for each in ended if each.status == "finished"]
    each_s = sum(known) / len(known) if known else each_flops / (peak * MFU)
    rounds = -(-left // at_once)
    checkpoint = 12 * parameters(config)  # fp32 weights and Adam's two moments
    return Forecast(
        trials=plan.sweep.trials,
        replicates=plan.sweep.replicates,
        left=left,
        at_once=at_once,
        parameters=parameters(config),
        trial_tokens=tokens,
        tokens=left * tokens,
        flops=left * each_flops,
        measured=bool(known),
        hours=rounds * each_s / 3600,
        device_hours=left * each_s / 3600 * (width.gpus or width.cpus),
        peak_bytes=2 * at_once * checkpoint,
        left_bytes=len(plan.runs) * LOG_BYTES * (1 + steps / 1000),
    )


def show_forecast(plan: SweepPlan, forecast: Forecast) -> None:
    """Prints a forecast and the mixtures."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=140)
    console.print(_facts(plan, forecast))
    console.print()
    console.print(_bounds(plan))


def _facts(plan: SweepPlan, forecast: Forecast) -> Table:
    device = "GPU-hours" if plan.recipe.resources.sweep.gpus else "core-hours"
    speed = (
        "from the speed of finished trials"
        if forecast.measured
        else f"at {MFU:.0%} MFU (assumed), without start-up time"
    )
    rows = (
        (
            "trials",
            f"{forecast.trials} mixtures x {forecast.replicates} runs, {forecast.left} left, {forecast.at_once} at a "
            f"time",
        ),
        ("each", f"{forecast.parameters:,} parameters, {forecast.trial_tokens:,} tokens"),
        ("in all", f"{forecast.tokens:,} tokens, {forecast.flops:.3g} FLOPs"),
        (
            "time",
            f"{html_page.duration(3600 * forecast.hours)}, {forecast.device_hours:.3g} {device}: {speed}",
        ),
        (
            "storage",
            f"{html_page.size(forecast.peak_bytes)} during the sweep, "
            f"{html_page.size(forecast.left_bytes)} of records at the end",
        ),
        ("to be small", " + ".join(f"{weight:g} {name}" for name, weight in plan.sweep.weights.items())),
    )
    title = f"{plan.recipe.name} {plan.recipe.version}: sweep"
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    return table


def _bounds(plan: SweepPlan) -> Table:
    table = Table("group", "token share", "least", "most", "bound by", title="Shares", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    region = plan.region
    for name, low, high in zip(region.groups, region.least, region.most, strict=True):
        by = "its epochs" if plan.caps[name] < plan.sweep.bounds[name][1] else "the recipe"
        shares = (plan.token_shares[name], low / region.block, high / region.block)
        table.add_row(name, *(f"{share:.1%}" for share in shares), by)
    return table
