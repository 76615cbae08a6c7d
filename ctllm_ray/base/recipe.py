"""The recipe: one YAML file, frozen after loading. Unknown keys are refused with the nearest valid name.

Decisions (data, stages, bounds, seed) have no defaults and are part of the fingerprint; `root`,
`serve` and `resources` (where, how wide) are outside it, so the same recipe gives the same bytes on
a laptop and on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ctllm_ray.base import exports, resolve, storage
from ctllm_ray.base.decisions import short
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.overrides import Yaml, overridden
from ctllm_ray.base.recipe_evaluation import Benchmark, Evaluate
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.base.recipe_sweep import Sweep, SweepResources
from ctllm_ray.base.recipe_training import (
    NAME,
    Frozen,
    Model,
    ObjectivePart,
    Schedule,
    Share,
    TokenizerPart,
    TokensPart,
    Train,
    TrainResources,
)

#: A section: `clean`, a pass (`near`) or a phase of one (`near/keys`), `tokenizer`, `tokens`, `train`.
Section = str
CLEAN: Final = "clean"
ROOT = "root:"  # prefix of a path relative to the recipe's root
#: The decisions that each kind of section adds to those before it, in order of work.
_DECIDES: dict[str, tuple[str, ...]] = {
    CLEAN: ("name", "version", "seed", "data", "stages"),
    "passes": ("passes",),
    "tokenizer": ("tokenizer",),
    "tokens": ("tokens",),
    "train": ("model", "train"),
}


class Input(BaseModel):
    """Files of one kind: `use` names the source; other keys are its options (field
    names, charset column, ...)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str
    path: str
    # the `source` of its documents and the first part of their ids; default: the folder's name
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _name_by_path(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("name") or not isinstance(value.get("path"), str):
            return value
        fixed = value["path"].split("*")[0].rpartition("/")[0]
        return value | {"name": fixed.rpartition("/")[2].rpartition(":")[2] or value.get("use", "")}


class StagePart(BaseModel):
    """A step of a section: `use` names the stage, other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str


class PassPart(BaseModel):
    """A step over all remaining documents: `use` names the pass and its section;
    other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str


class Data(Frozen):
    """What is read, and how many errors are allowed."""

    inputs: tuple[Input, ...]
    max_error_share: (
        Share  # the section fails if more of its records are error.*, or more of its bytes are lost
    )
    max_unfinished_file_share: Share = 0.001  # or if more of its files could not be read to their end
    # share of rejected pages that keep their text, chosen by a hash of the id
    rejected_text_share: Share = 1.0
    split_mb: Annotated[float, Field(gt=0)] = 64  # size of a split, the unit of retry and resume
    max_record_mb: Annotated[float, Field(gt=0, le=1024)] = 16  # longer records become error.record_too_large
    error_raw_kb: Annotated[float, Field(ge=0)] = 4  # so much of a bad record is kept


class Resources(Frozen):
    """Where and how wide to run; never part of a fingerprint."""

    workers: Annotated[int, Field(ge=0)] = 0  # splits at once; 0 means all CPUs
    object_store_mb: Annotated[int, Field(ge=80)] = 256  # of a Ray that this run starts
    max_retries: Annotated[int, Field(ge=0)] = 20  # retries of a split after its worker died
    #: Ray label selector of work without GPUs. The cluster files label GPU nodes, so that such work starts
    #: none.
    cpu_nodes: Mapping[str, str] = {"ctllm-nodes": "!gpu"}
    train: TrainResources = TrainResources()
    sweep: SweepResources = SweepResources()

    def label_selector(self, gpus: float = 0) -> dict[str, str]:
        """Ray's label selector for nodes that may run work with so many GPUs; empty: any node."""
        return {} if gpus else dict(self.cpu_nodes)


class Recipe(Frozen):
    """The whole recipe after resolving names: every option
    of every stage and source is checked and filled in."""

    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[str, Field(pattern=NAME)]
    seed: int
    data: Data
    stages: tuple[StagePart, ...]
    passes: tuple[PassPart, ...] = ()
    tokenizer: TokenizerPart | None = None
    tokens: TokensPart | None = None
    model: Model | None = None
    train: Train | None = None
    sweep: Sweep | None = None
    evaluate: Evaluate | None = None
    serve: Serve = Serve()
    root: str = "out"
    resources: Resources = Resources()

    def folder(self, section: str) -> str:
        """The folder of a section: a URI or an absolute path. A named run has its own folders."""
        if section in ("train", "export", "sweep", "evaluate") and self.train and self.train.run:
            section = f"{section}-{self.train.run}"
        if section.startswith("evaluate") and self.evaluate and self.evaluate.run:
            section = f"{section}-{self.evaluate.run}"
        return storage.join(storage.absolute(self.root), self.name, self.version, section)

    @property
    def corpus_sections(self) -> tuple[str, ...]:
        """The sections that write documents, in order: `clean` and the passes. Each reads
        what the previous one kept."""
        return (CLEAN, *(part.use for part in self.passes))

    @property
    def corpus(self) -> str:
        """The section whose kept documents are the corpus: the last pass, or `clean`."""
        return self.corpus_sections[-1]

    def locate(self, path: str) -> str:
        """The full path of a recipe path. `root:` means its root;
        `root:NAME/VERSION/export[-RUN]` the newest export there.

        Raises `NotFound` if there is no export yet.
        """
        if not path.startswith(ROOT):
            return path
        below = path.removeprefix(ROOT).strip("/")
        folder = storage.join(storage.absolute(self.root), below)
        is_export = below.count("/") == 2 and below.rpartition("/")[2].partition("-")[0] == "export"
        return exports.newest(folder) if is_export else folder

    def training(self) -> tuple[Model, Train]:
        """The sections for training, with the model's path resolved. Raises `RecipeError` if
        the recipe trains no model."""
        if self.model is None or self.train is None:
            raise RecipeError("the recipe trains no model", remedy="add the sections `model` and `train`")
        return self.model.model_copy(update={"path": self.locate(self.model.path)}), self.train

    @property
    def train_seed(self) -> int:
        """The seed of a training run: `train.seed`, else the recipe's own."""
        return self.seed if self.train is None or self.train.seed is None else self.train.seed

    def token_folders(self) -> tuple[str, ...]:
        """The token sections that training reads: those in `train.corpora`, else the recipe's own."""
        named = self.train.corpora if self.train else ()
        return tuple(self.locate(folder) for folder in named) or (self.folder("tokens"),)

    def decisions(self, section: Section = CLEAN) -> dict[str, Any]:
        """The decisions that a section's output depends on,
        as plain values: not location, parallelism or limits.

        A section depends on all that the sections before it do, a pass and its phases on the passes before.
        Data may join a run: `train.corpora` is left out here and held by the run itself.
        """
        uses, use = [part.use for part in self.passes], section.partition("/")[0]
        kinds = list(_DECIDES)
        kind = "passes" if use in uses else use
        keys = {key for name in kinds[: kinds.index(kind) + 1] for key in _DECIDES[name]}
        limits = {"max_error_share", "max_unfinished_file_share"}
        dumped = self.model_dump(mode="json", include=keys, exclude={"data": limits, "train": {"corpora"}})
        if kind == "passes":
            dumped["passes"] = dumped["passes"][: uses.index(use) + 1]
        return {
            key: value
            for key, value in dumped.items()
            if value is not None and (key, value) != ("passes", [])
        }


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `key=value` overrides applied. Raises `RecipeError`."""
    try:
        plain = yaml.load(Path(path).read_text(encoding="utf-8"), Yaml)
    except FileNotFoundError:
        raise RecipeError(
            "the recipe file does not exist",
            where=path,
            remedy="check the path; recipes are in jobs/recipes/",
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"the recipe is not readable as YAML: {error}", where=path, remedy="correct the file"
        ) from None
    if not isinstance(plain, dict):
        raise RecipeError(
            "a recipe must be a mapping of keys", where=path, remedy="start from jobs/recipes/tiny.yaml"
        )
    for override in overrides:
        plain = overridden(plain, override)
    return parse_recipe(plain, path)


def parse_recipe(plain: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A checked recipe from plain values. Raises `RecipeError` with the place and the nearest valid name."""
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        raise _explain_invalid(error, where) from None
    inputs = [_check_part(i, resolve.SOURCES, f"{where}: data.inputs") for i in recipe.data.inputs]
    stages = [_check_part(s, resolve.STAGES, f"{where}: stages") for s in recipe.stages]
    passes = [_check_part(p, resolve.PASSES, f"{where}: passes") for p in recipe.passes]
    names = [i["name"] for i in inputs]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(
                f"two inputs are named {name!r}", where=where, remedy="give each input a `name:`"
            )
    for use in recipe.corpus_sections:
        if recipe.corpus_sections.count(use) > 1:
            remedy = "a pass has only one section: list it once"
            raise RecipeError(f"the pass {use!r} is listed twice", where=f"{where}: passes", remedy=remedy)
    rules = [rule["name"] for stage in stages for rule in stage.get("rules") or []]
    for name in rules:
        if rules.count(name) > 1:
            remedy = "give one of them another `name:`"
            raise RecipeError(f"two rules are named {name!r}", where=where, remedy=remedy)
    _check_scores(stages, where)
    checked = recipe.model_dump() | {"data": recipe.data.model_dump() | {"inputs": inputs}}
    checked |= {"stages": stages, "passes": passes}
    _check_names(recipe, where)
    if recipe.train:
        objective = _check_part(recipe.train.objective, resolve.OBJECTIVES, f"{where}: train.objective")
        checked["train"] = recipe.train.model_dump() | {"objective": objective}
    if recipe.evaluate:
        tasks = [
            _check_part(task, resolve.TASKS, f"{where}: evaluate.tasks") for task in recipe.evaluate.tasks
        ]
        checked["evaluate"] = recipe.evaluate.model_dump() | {"tasks": tasks}
    return Recipe.model_validate(checked)


def _check_scores(stages: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raises if an output column would hold two different values: replay and `why`
    read what the run decided by."""
    meanings: dict[str, tuple[int, dict[str, Any]]] = {}
    sorting = [index for index, stage in enumerate(stages) if stage.get("genres")]
    if len(sorting) > 1:
        raise RecipeError(
            "two stages define genres",
            where=where,
            remedy="define all genres in one stage: later stages can use them",
        )
    for index, stage in enumerate(stages):
        conditions = [rule for genre in stage.get("genres") or [] for rule in genre["conditions"]]
        for rule in map(Rule.model_validate, [*(stage.get("rules") or []), *conditions]):
            meaning = (index if rule.use in resolve.names(resolve.MEASURES) else -1, rule.options)
            if meanings.setdefault(rule.score, meaning) != meaning:
                remedy = "measure it in one stage, or with the same options: its values share one column"
                raise RecipeError(
                    f"{rule.score!r} is measured with different options", where=where, remedy=remedy
                )


def _check_names(recipe: Recipe, where: str) -> None:
    """Raises if a key names a module that does not exist."""
    resources = recipe.resources.train
    named = [(resolve.TRACKERS, "resources.train.trackers", name) for name in resources.trackers]
    if resources.stepper != "auto":
        named.append((resolve.STEPPERS, "resources.train.stepper", resources.stepper))
    named.append((resolve.ENGINES, "serve.engine", recipe.serve.engine))
    if recipe.evaluate and recipe.evaluate.judge:
        named.append((resolve.JUDGES, "evaluate.judge.use", recipe.evaluate.judge.use))
    if recipe.train:
        named.append((resolve.PACKERS, "train.packing", recipe.train.packing))
    for package, key, name in named:
        resolve.check_module(package, name, f"{where}: {key}")
    if recipe.train:
        _check_schedule(recipe.train.schedule, recipe.train.tokens, f"{where}: train.schedule")
    if recipe.sweep:
        _check_schedule(recipe.sweep.schedule, recipe.sweep.tokens, f"{where}: sweep.schedule")


def _check_schedule(schedule: Schedule, total_tokens: int, where: str) -> None:
    """Raises for an unknown schedule, an unknown option of it, or an invalid value."""
    function = resolve.resolve(resolve.SCHEDULES, schedule.use)
    fields = resolve.options(function).model_fields
    for key in schedule.model_extra or {}:
        if key not in fields:
            names = sorted({*Schedule.model_fields, *fields})
            raise RecipeError(f"unknown option {key!r}", where=where, remedy=resolve.nearest(key, names))
    known = schedule.model_dump() | {"total_tokens": total_tokens}
    options = {name: value for name, value in known.items() if name in fields}
    try:
        function(**resolve.check_options(function, options, where))
    except RecipeError as error:
        raise RecipeError(error.what, where=error.where or where, remedy=error.remedy) from None


def _check_part(
    part: Input | StagePart | PassPart | ObjectivePart | Benchmark, package: str, where: str
) -> dict[str, Any]:
    """A source, stage or the like, with its options checked against its function and filled in."""
    function = resolve.resolve(package, part.use)
    extra = resolve.check_options(function, dict(part.model_extra or {}), f"{where}.{part.use}")
    return part.model_dump(exclude=set(part.model_extra or {})) | extra


_UNION_TAGS = (
    "constrained-",
    "tuple[",
)  # pydantic's markers for values of several types: not keys of a recipe


def _explain_invalid(error: ValidationError, where: str) -> RecipeError:
    unknown = {"extra_forbidden", "invalid_key"}
    first = min(
        error.errors(), key=lambda e: e["type"] not in unknown
    )  # a misspelt key is also a missing key
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(_UNION_TAGS))
    if first["type"] == "extra_forbidden":
        remedy = resolve.nearest(str(first["loc"][-1]), _part(first["loc"][:-1]).model_fields)
        return RecipeError(f"unknown key {place!r}", where=where, remedy=remedy)
    if first["type"] == "missing":
        name, keys = str(first["loc"][-1]), first["input"] if isinstance(first["input"], Mapping) else {}
        extra = keys.keys() - _part(first["loc"][:-1]).model_fields.keys()
        if misspelt := resolve.closest(name, extra):
            remedy = f"did you mean {name!r}?"
            return RecipeError(
                f"{place!r} is missing; {misspelt!r} is not an option", where=where, remedy=remedy
            )
        return RecipeError(
            f"{place!r} is missing", where=where, remedy="set it in the recipe: decisions have no defaults"
        )
    remedy = "put quotes around the value" if first["type"] == "string_type" else "correct the value"
    # our own messages contain the value
    got = "" if first["type"] == "value_error" else f", got {short(first['input'])}"
    return RecipeError(
        f"{place!r}: {first['msg'].removeprefix('Value error, ')}{got}",
        where=where,
        remedy=remedy,
    )


def _part(path: Sequence[str | int]) -> type[BaseModel]:
    """The model at a place of the recipe, through optional parts and lists."""
    model: Any = Recipe
    for step in path:
        if isinstance(step, str):
            kind = model.model_fields[step].annotation
            model = next(
                (k for k in (*get_args(kind), kind) if isinstance(k, type) and issubclass(k, BaseModel)), kind
            )
    return model
