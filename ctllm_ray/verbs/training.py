"""Verbs of training: `plan`, `train`, `sweep`, `export` and `batch`."""

from __future__ import annotations

from typing import Annotated

import typer

from ctllm_ray.verbs.arguments import Overrides, RecipePath, load


def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="GPU type: h100, h200, a100, ..., or cpu")] = "",
    gpus: Annotated[int, typer.Option(help="Number of GPUs; default: the workers of the recipe")] = 0,
    mfu: Annotated[
        float,
        typer.Option(
            help="Model FLOPs utilization to assume: the share of peak FLOP/s that training reaches"
        ),
    ] = 0.4,
) -> None:
    """Estimate a run: parameters, FLOPs, memory per ZeRO stage, hours, storage, steps, epochs."""
    from ctllm_ray.train.plan import terminal
    from ctllm_ray.train.plan.plan import plan_training

    terminal.print_plan(plan_training(load(recipe, overrides), gpu=gpu, gpus=gpus, mfu=mfu))


def train(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train on the token shards with Ray Train. Resumes from the newest checkpoint."""
    from ctllm_ray import api

    loaded = load(recipe, overrides)
    state = api.train_model(loaded)
    typer.echo(f"step {state.step}, {state.tokens:,} tokens: {loaded.folder('train')}")


def sweep(
    recipe: RecipePath,
    overrides: Overrides = None,
    forecast: Annotated[bool, typer.Option("--forecast", help="Print the cost estimate only")] = False,
) -> None:
    """Train small models on many mixtures with Ray Tune, fit a mixture law, and choose the best mixture."""
    from ctllm_ray.mixture import plan, results
    from ctllm_ray.mixture.forecast import forecast_sweep, show_forecast
    from ctllm_ray.mixture.report import outcome

    loaded = load(recipe, overrides)
    planned = plan.plan_sweep(loaded)
    ended = results.read_trials(planned.folder, planned.sweep.trials)
    show_forecast(planned, forecast_sweep(planned, ended))
    if forecast:
        return
    from ctllm_ray import api

    chosen = api.sweep_mixtures(loaded)
    typer.echo(f"{chosen.why}\n{outcome.words(chosen.shares)}: {planned.folder}/{outcome.MIXTURE}")


def export(
    recipe: RecipePath,
    overrides: Overrides = None,
    step: Annotated[int, typer.Option(help="Training step of the checkpoint; default: the newest")] = 0,
    fp32: Annotated[bool, typer.Option("--fp32", help="Write weights in fp32 instead of bf16")] = False,
) -> None:
    """Export a checkpoint as a Hugging Face folder, with its lineage."""
    from ctllm_ray.train.checkpoint.export import export_checkpoint

    typer.echo(export_checkpoint(load(recipe, overrides), step or None, "fp32" if fp32 else "bf16"))


def batch(
    recipe: RecipePath,
    overrides: Overrides = None,
    step: Annotated[int, typer.Option(help="Training step, from 1")] = 0,
    number: Annotated[int, typer.Option("--batch", help="Batch number, from 0, instead of --step")] = -1,
    rank: Annotated[int, typer.Option(help="Rank of the worker whose rows to show")] = 0,
    world: Annotated[int, typer.Option(help="Number of workers; default: one, which shows all rows")] = 1,
) -> None:
    """List the documents in the batch of a training step. Pass their ids to `ctllm why`."""
    from ctllm_ray.train.data import inspect_batch

    if (step > 0) == (number >= 0):
        raise typer.BadParameter("give --step N (from 1) or --batch N (from 0)")
    loaded = load(recipe, overrides)
    chosen = number if number >= 0 else inspect_batch.batch_of_step(loaded, step)
    for line in inspect_batch.format_batch(inspect_batch.inspect_batch(loaded, chosen, rank, world)):
        typer.echo(line)
