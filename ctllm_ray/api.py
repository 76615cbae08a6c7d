"""What the commands do, as functions: `ctllm_ray.prepare_data(recipe)` is `ctllm prepare`.

    import ctllm_ray

    recipe = ctllm_ray.load_recipe("jobs/recipes/tiny.yaml", ["root=out"])
    ctllm_ray.prepare_data(recipe)
    ctllm_ray.train_model(recipe)
    folder = ctllm_ray.export_checkpoint(recipe)

The commands call these functions, so both do the same. Each continues what an earlier call or command began, and
raises a class of `ctllm_ray.base.errors.CtllmError`, with what, where and a remedy. Progress goes to stderr, or to
the `stream` that you give. What a function needs is imported when it is called: torch and Ray take seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pyarrow as pa

    from ctllm_ray.base.recipe import Recipe
    from ctllm_ray.corpus.explain.replay import Replay
    from ctllm_ray.corpus.explain.why import PageHistory
    from ctllm_ray.mixture.choose import Choice
    from ctllm_ray.shards.manifest import Manifest
    from ctllm_ray.train.checkpoint.run_state import RunState


def prepare_data(recipe: Recipe, stream: TextIO | None = None) -> dict[str, Manifest]:
    """The manifest of each section that the recipe has, by name: `clean`, the passes, `tokenizer`, `tokens`.

    `counts` of a manifest are documents (`in`, `kept`, `reject:RULE`), for `tokens` also token ids. A finished
    section is only read. Starts a Ray on this machine where none is up. Raises `RecipeError` for a recipe that
    cannot work, `InputError` for inputs that are not there, `VersionConflict` where the folder holds the work of
    another recipe.
    """
    from ctllm_ray.corpus import pipeline
    from ctllm_ray.corpus.engine.progress import SectionProgress

    return pipeline.prepare(recipe, progress=SectionProgress(stream or sys.stderr))


def read_shards(folder: str, kind: str = "kept", columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The record batches of a finished section's shards, in order, as tables.

    `folder` is the section's, such as `recipe.folder(recipe.corpus)`, local or on an object store. `kind` is
    `kept` or `rejected` for documents, `train` or `held_out` for tokens. Of `columns`, by default all, only these
    are read. Columns are those of docs/reference/corpus-output.md: a document has `id`, `text`, `url`, `source`,
    `scores`, `labels`. Raises `NotFound` where the section is not finished or has no shards of this kind,
    `StorageError` where a shard is missing or damaged.
    """
    from ctllm_ray.base.errors import NotFound
    from ctllm_ray.shards import manifest, reader

    finished = manifest.read_manifest(folder)
    if not finished.of_kind(kind):
        kinds = sorted({shard.path.partition("/")[0] for shard in finished.shards})
        raise NotFound(f"there are no {kind!r} shards", where=folder, remedy=f"there are: {', '.join(kinds)}")
    for _, table in reader.tables(folder, finished, kind, columns):
        yield table


def explain_page(recipe: Recipe, key: str) -> list[PageHistory]:
    """The pages with this id or url, kept ones first: every measure, the rule that dropped it, its copies, its text.

    Raises `NotFound` where no page has it, or the corpus is not finished.
    """
    from ctllm_ray.corpus import pipeline
    from ctllm_ray.corpus.explain import why
    from ctllm_ray.shards import manifest

    folder = recipe.folder(recipe.corpus)
    finished = manifest.read_manifest(folder)
    return why.explain_page(folder, finished, pipeline.recipe_of(finished), key)


def explain_input_file(recipe: Recipe, key: str) -> list[dict[str, Any]]:
    """The input files with that path or name: bytes read and lost, records, and why. Empty if there is none.

    Of a section that is not finished, files that were read so far. Raises `StorageError` where it cannot be read.
    """
    from ctllm_ray.corpus.engine import input_files

    return input_files.find_input_files(recipe.folder("clean"), key)


def replay_thresholds(recipe: Recipe, thresholds: Sequence[str]) -> Replay:
    """How many documents other thresholds would keep and drop, from stored scores: nothing is cleaned again.

    A threshold is `RULE.min=NUMBER` or `RULE.max=NUMBER`, such as `document.digit_share.max=0.6`; `=none` removes
    it. Raises `RecipeError` for a rule that the corpus does not have, `NotFound` where it is not finished.
    """
    from ctllm_ray.corpus import pipeline
    from ctllm_ray.corpus.explain import replay
    from ctllm_ray.shards import manifest

    folder = recipe.folder(recipe.corpus)
    finished = manifest.read_manifest(folder)
    return replay.replay_bounds(folder, finished, pipeline.recipe_of(finished), thresholds)


def train_model(recipe: Recipe, stream: TextIO | None = None) -> RunState:
    """The state in which the training run ended: `step` updates, `tokens` positions.

    Needs the token shards of `prepare_data`. Trains with Ray Train on the Ray that is up, or starts one on this
    machine. Ctrl-C saves a checkpoint first. Raises `RecipeError` for a recipe without `train`, `NotFound` where
    there are no token shards, `Diverged` where the loss did, `WorkerLost` where workers failed too often.
    """
    from ctllm_ray.train.ray import launch
    from ctllm_ray.train.report.progress import TrainingProgress

    _, train = recipe.training()
    with TrainingProgress(recipe.folder("train"), train.tokens, stream or sys.stderr) as progress:
        return launch.run_training(recipe, progress.print_above)


def sweep_mixtures(recipe: Recipe, stream: TextIO | None = None) -> Choice:
    """The mixture to train with: `shares` by source, `by` what it was chosen, and `why` in words.

    Trains the recipe's trials with Ray Tune, where they have no result yet. The folder `sweep` then has
    `mixture.yaml`, a value of `train.mixture`, `choice.json` and `report.html`. Raises `RecipeError` for a recipe
    without `sweep`, `VersionConflict` where the recipe or the data changed since the sweep began.
    """
    from ctllm_ray.mixture import launch, plan
    from ctllm_ray.mixture.report import outcome

    planned = plan.plan_sweep(recipe)
    return outcome.write_outcome(planned, launch.run_sweep(planned, LineWriter(stream or sys.stderr)))


class LineWriter:
    """Writes lines to a stream.

    Tune pickles what is told of its trials, for a restore that is not used here, and no stream can be pickled:
    what comes out of the pickle writes nothing.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def __call__(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)

    def __reduce__(self) -> tuple[type[LineWriter], tuple[()]]:
        return LineWriter, ()


def evaluate_model(
    recipe: Recipe, *, url: str = "", key_env: str = "", stream: TextIO | None = None
) -> dict[str, Any]:
    """The results of the recipe's tasks, as in `results.json` of the folder `evaluate`.

    `scores` has an entry for each benchmark and each of its parts: `benchmark`, `value`, `low`, `high` (95 %),
    `items`. Shares are from 0 to 1, bits per byte are bits. The model is the newest export, or
    `evaluate.model`, in this process; with `url` (`http://HOST:PORT/v1`) the one that is served there, and
    `key_env` names the environment variable with its key. Raises `RecipeError` for a recipe without `evaluate`,
    `NotFound` where there is no model, `VersionConflict` where the folder has another evaluation.
    """
    from ctllm_ray.evaluate import run, terminal

    return run.evaluate(recipe, terminal.EvaluationProgress(stream), url=url, key_env=key_env)


@contextmanager
def serve_model(recipe: Recipe) -> Iterator[str]:
    """The URL of the served model for as long as the `with` block lasts: a chat page, and the API below `/v1`.

    Serves the newest export, or `serve.model`, on Ray Serve at `serve.host` and `serve.port` (0: a free one).
    Raises `NotFound` where there is no model, `InputError` where the port is taken, `RecipeError` where others
    could reach it without a key.
    """
    from ctllm_ray.serving.ray import application

    with application.serving_alone(recipe) as url:
        yield url
