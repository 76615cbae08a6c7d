"""The whole chain on one machine: pages, tokenizer, pretraining, SFT, DPO, sweep, evaluation, served model.

Every step is what its own command does, with the recipes that stand side by side (`tiny.yaml`, `tiny_sft.yaml`,
`tiny_dpo.yaml`), so a second demo finds all of it done. Ray is started once for all steps. At the end the
model is asked one question over HTTP, as any client would. What a step needs is imported when it begins, so
that the first line comes at once.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from ctllm_ray.shards.manifest import Manifest

QUESTION, TOKENS = "“大”的反义词是什么？", 48
ALIGNED = ("sft", "dpo")  # recipes beside the first one: <name>_sft.yaml, <name>_dpo.yaml
#: The sample's pages, one of them that is dropped, and a threshold that keeps more.
SAMPLE = "sample:pages.jsonl.zst"
DROPPED, REPLAYED = "http://loan.spam4.example/view.php?id=19", "document.digit_share.max=0.6"
#: The steps and the seconds that each took on two cores that others used too (docs/results.md, "The demo").
STEPS = {
    "cleaning pages": 11,
    "tokenizer and token shards": 2,
    "pretraining": 46,
    "SFT": 26,
    "DPO": 35,
    "mixture sweep": 37,
    "evaluation": 2,
    "serving": 11,
}
Tell = Callable[[str], None]


def run_demo(path: str, recipe: Recipe, tell: Tell, stay: bool) -> None:
    """Runs all steps, sends the served model one prompt, and with `stay` keeps serving until Ctrl-C.

    `path` is the recipe's file, beside which those of the aligned models stand; they share its root and
    resources. `tell` is given lines for people. Raises `CtllmError` as the steps do.
    """
    progress = StepProgress(tell)
    tell(f"{len(STEPS)} steps, about {sum(STEPS.values())} s on two cores; output: {recipe.root}")
    aligned = [_load_beside(path, name, recipe) for name in ALIGNED]
    from ctllm_ray.serving.ray import application  # brings Ray, in seconds

    application.free_port(recipe.serve.host, recipe.serve.port)  # a taken one is told now, not at the end
    with application.serving_session(os.cpu_count() or 1, recipe.resources.object_store_mb):
        _clean(recipe, progress)
        _write_tokens([recipe, *aligned], progress)
        folders = [_train(*each, progress) for each in zip(list(STEPS)[2:5], [recipe, *aligned], strict=True)]
        _sweep(recipe, progress)
        _evaluate(recipe, folders[-1], progress)
        served = aligned[-1].model_copy(
            update={"serve": recipe.serve.model_copy(update={"model": folders[-1]})}
        )
        progress.begin("serving", "an OpenAI-compatible API and a chat page, on Ray Serve")
        with application.serving(served) as url:
            progress.finish(url)
            tell(f"\n问：{QUESTION}\n答：{_ask_question(url)}\n")
            _tell_end(path, recipe, folders, progress, tell)
            if stay:
                tell(f"\nopen {url} (Ctrl-C ends it)")
                application.wait_and_drain(served, tell)


class StepProgress:
    """Tells of each step: its number, what it does and about how long it takes; then what came of it."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._number = tell, 0
        self.began = self._since = time.monotonic()

    def begin(self, name: str, what: str) -> None:
        """Before the next step."""
        self._number += 1
        self._since = time.monotonic()
        assert list(STEPS)[self._number - 1] == name, name
        self._tell(f"[{self._number}/{len(STEPS)}] {name}: {what} (about {STEPS[name]} s)")

    def note(self, line: str) -> None:
        """A line that belongs to the step."""
        self._tell(f"      {line}")

    def finish(self, outcome: str) -> None:
        """The step is done."""
        self.note(f"{time.monotonic() - self._since:.0f} s: {outcome}")


def _load_beside(path: str, name: str, recipe: Recipe) -> Recipe:
    """The recipe of an aligned model, with the root and resources of the first one."""
    result = load_recipe(_beside(path, name))
    return result.model_copy(update={"root": recipe.root, "resources": recipe.resources})


def _beside(path: str, name: str) -> str:
    file = Path(path)
    return str(file.with_name(f"{file.stem}_{name}{file.suffix}"))


def _clean(recipe: Recipe, progress: StepProgress) -> None:
    """Cleans the recipe's pages, and writes the report."""
    what = f"{len(recipe.stages)} stages, then the passes {', '.join(part.use for part in recipe.passes)}"
    progress.begin("cleaning pages", what)
    from ctllm_ray.corpus import pipeline
    from ctllm_ray.corpus.report.render import write_corpus_report

    cleaned = pipeline.prepare_corpus(recipe, progress=_progress())
    write_corpus_report(recipe.folder(recipe.corpus), _report(recipe, "clean"))
    kept, read = cleaned[recipe.corpus].counts["kept"], cleaned["clean"].documents
    progress.finish(f"{kept:,} of {read:,} pages kept")


def _write_tokens(recipes: Sequence[Recipe], progress: StepProgress) -> None:
    """The first recipe's tokenizer, and the token shards of all."""
    progress.begin("tokenizer and token shards", "of the pages, of conversations and of pairs of answers")
    from ctllm_ray.corpus import pipeline

    finished = [pipeline.prepare(recipe, progress=_progress()) for recipe in recipes]
    progress.finish(", ".join(map(_count_tokens, recipes, finished)))


def _count_tokens(recipe: Recipe, finished: dict[str, Manifest]) -> str:
    return f"{finished['tokens'].counts['tokens']:,} tokens of {recipe.name}"


def _train(name: str, recipe: Recipe, progress: StepProgress) -> str:
    """The export of a recipe's model, after finishing its training."""
    tokens = recipe.training()[1].tokens
    progress.begin(name, f"{tokens:,} tokens of {recipe.name}")
    from ctllm_ray.train.checkpoint import export
    from ctllm_ray.train.ray.launch import run_training
    from ctllm_ray.train.report.progress import TrainingProgress
    from ctllm_ray.train.report.render import write_training_report

    with TrainingProgress(recipe.folder("train"), tokens) as following:
        run_training(recipe, following.print_above)
    write_training_report(recipe, _report(recipe, "train"))
    folder = export.export_checkpoint(recipe)
    progress.finish(folder)
    return folder


def _sweep(recipe: Recipe, progress: StepProgress) -> None:
    """Tries the recipe's mixtures."""
    wanted = f"{recipe.sweep.trials} mixtures, {recipe.sweep.tokens:,} tokens each" if recipe.sweep else ""
    progress.begin("mixture sweep", wanted)
    from ctllm_ray.mixture import plan
    from ctllm_ray.mixture.launch import run_sweep
    from ctllm_ray.mixture.report import outcome

    planned = plan.plan_sweep(recipe)
    chosen = outcome.write_outcome(planned, run_sweep(planned, progress.note))
    progress.finish(f"{outcome.words(chosen.shares)} ({chosen.by})")


def _evaluate(recipe: Recipe, folder: str, progress: StepProgress) -> None:
    """Scores the model of a folder on the recipe's tasks."""
    progress.begin("evaluation", "of the model that DPO made: an exam, and bits per byte on pages held out")
    from ctllm_ray.evaluate import terminal
    from ctllm_ray.evaluate.run import evaluate

    if recipe.evaluate is not None:
        part = recipe.evaluate.model_copy(update={"model": folder})
        recipe = recipe.model_copy(update={"evaluate": part})
    results = evaluate(recipe, terminal.EvaluationProgress())
    for line in terminal.format_scores(results):
        progress.note(line)
    progress.finish(recipe.folder("evaluate"))


def _progress() -> Any:
    from ctllm_ray.corpus.engine.progress import SectionProgress

    return SectionProgress.to_stderr()


def _report(recipe: Recipe, section: str) -> str:
    return storage.join(recipe.folder(section), "report.html")


def _ask_question(url: str) -> str:
    """The answer of the served model to `QUESTION`."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
        model = json.load(answer)["data"][0]["id"]
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        result: dict[str, Any] = json.load(answer)
    return result["choices"][0]["message"]["content"]


def _tell_end(path: str, recipe: Recipe, folders: Sequence[str], progress: StepProgress, tell: Tell) -> None:
    """How long it took, what so small a model can do, links that open, and what to run next."""
    from ctllm_ray.model import config

    parameters, tokens = config.parameters(config.of_folder(folders[0])), recipe.training()[1].tokens
    tell(f"{time.monotonic() - progress.began:.0f} s from the first page to this answer.")
    tell(
        f"The model has {parameters / 1e6:.1f} million parameters and has read {tokens:,} tokens. It has learnt "
        "characters, some words and the form of an answer, and nothing of the world."
    )
    tell("Larger sizes and more text take the same commands.\n\nReports:")
    for section in ("clean", "train", "sweep", "evaluate"):
        tell(f"  {section:<9} {link_to(_report(recipe, section))}")
    tell("\nNext:")
    for step in next_steps(path, recipe):
        tell(f"  {step.command}\n      {step.result}")


def link_to(uri: str) -> str:
    """An address that a browser or a terminal opens: `file://` for a path of this machine, else as it is."""
    return uri if storage.is_remote(uri) else Path(storage.absolute(uri)).as_uri()


@dataclass(frozen=True)
class NextStep:
    """A command and what it does."""

    command: str
    result: str


def next_steps(path: str, recipe: Recipe) -> list[NextStep]:
    """What to run after the demo, with its recipes and its root; of a page and a rule only where they are the
    sample's."""
    arguments = f"{path} root={recipe.root}"
    aligned = f"{_beside(path, ALIGNED[-1])} root={recipe.root}"
    steps = [NextStep(f"ctllm serve {aligned}", "serves this model and a chat page until Ctrl-C")]
    if any(source.path == SAMPLE for source in recipe.data.inputs):
        steps += [
            NextStep(f"ctllm why {arguments} '{DROPPED}'", "shows why this page was dropped"),
            NextStep(f"ctllm replay {arguments} --set {REPLAYED}", "shows what another threshold would keep"),
        ]
    return steps
