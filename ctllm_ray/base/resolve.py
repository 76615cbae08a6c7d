"""Resolves names of a recipe: `repetition.covered_share` is
the function `covered_share` in `measures/repetition.py`.

The one mechanism by which a recipe reaches code. A name without a dot is a module and the function of the
same name in it. A function's keyword-only parameters are the options that a recipe may set, so its signature
is the schema; there is no registry to keep.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ctllm_ray.base.errors import RecipeError

STAGES = "ctllm_ray.corpus.stages"
PASSES = "ctllm_ray.corpus.passes"
SOURCES = "ctllm_ray.corpus.sources"
MEASURES = "ctllm_ray.text.measures"
OBJECTIVES = "ctllm_ray.train.objectives"
SCHEDULES = "ctllm_ray.train.schedules"
PACKERS = "ctllm_ray.shards.packers"
TASKS = "ctllm_ray.evaluate.tasks"

#: In these packages a name stands for a module; the functions of its contract have fixed names.
STEPPERS = "ctllm_ray.train.steppers"
TRACKERS = "ctllm_ray.train.tracking.trackers"
LAWS = "ctllm_ray.mixture.laws"
ENGINES = "ctllm_ray.serving.ray.engines"
JUDGES = "ctllm_ray.evaluate.judging.judges"


@cache
def names(package: str) -> tuple[str, ...]:
    """The names that `resolve` accepts in a package, sorted; read from the source without imports."""
    results = []
    for file in _files(package):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        public = [n.name for n in body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
        if file.stem in public:
            results.append(file.stem)
        else:
            results += [f"{file.stem}.{name}" for name in public]
    return tuple(results)


@cache
def module_names(package: str) -> tuple[str, ...]:
    """The names that `load_module` accepts in a package, sorted."""
    return tuple(file.stem for file in _files(package))


def _files(package: str) -> list[Path]:
    folders = map(Path, importlib.import_module(package).__path__)
    return sorted(file for folder in folders for file in folder.glob("*.py") if file.stem != "__init__")


def closest(name: str, valid: Iterable[str]) -> str:
    """The most similar valid name; empty if none is similar."""
    return next(iter(difflib.get_close_matches(name, valid, n=1, cutoff=0.5)), "")


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that suggests the closest valid name and lists all of them."""
    valid = list(valid)
    close = closest(name, valid)
    hint = f"did you mean {close!r}? " if close else ""
    return f"{hint}valid names: {', '.join(valid)}"


@cache
def declared_names(package: str, stage: str, constant: str) -> tuple[str, ...]:
    """The names in a constant (`SCORES`, `LABELS`) of a module: columns that it
    adds. Read from the source."""
    return tuple(declared_value(package, stage, constant) or ())


@cache
def declared_value(package: str, name: str, constant: str) -> Any:
    """The value of a constant of a module, read from the source; None if it has none."""
    [file] = [file for file in _files(package) if file.stem == name]
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == [constant]:
            return ast.literal_eval(node.value)
    return None


@cache
def resolve(package: str, name: str) -> Callable[..., Any]:
    """The function of a name. Raises `RecipeError` with the existing names."""
    _check_name(package, name, names(package))
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"{package}.{module}"), function or module)


def load_module(package: str, name: str) -> Any:
    """The module of a name. Raises `RecipeError` with the existing names."""
    check_module(package, name)
    return importlib.import_module(f"{package}.{name}")


def check_module(package: str, name: str, where: str = "") -> None:
    """Raises `RecipeError` for a name that `load_module` does not accept. Imports nothing."""
    _check_name(package, name, module_names(package), where)


def _check_name(package: str, name: str, valid: tuple[str, ...], where: str = "") -> None:
    if name not in valid:
        kind = "pass" if package == PASSES else package.rsplit(".", 1)[-1].removesuffix("s")
        raise RecipeError(f"unknown {kind} {name!r}", where=where, remedy=nearest(name, valid))


@cache
def options(function: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model of the keyword-only parameters of a function: what a recipe may set for it."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    return create_model(
        f"{function.__name__} options", __config__=ConfigDict(extra="forbid", frozen=True), **fields
    )


def check_options(function: Callable[..., Any], values: dict[str, Any], where: str) -> dict[str, Any]:
    """The given options with defaults filled in, as plain values. Raises `RecipeError` for
    unknown or invalid options."""
    model = options(function)
    for key in values:
        if key not in model.model_fields:
            remedy = nearest(key, model.model_fields) if model.model_fields else "it takes no options"
            raise RecipeError(f"unknown option {key!r}", where=where, remedy=remedy)
    try:
        return model(**values).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RecipeError(f"option {key!r}: {first['msg']}, got {first['input']!r}", where=where) from None
