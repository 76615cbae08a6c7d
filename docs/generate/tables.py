"""Fills the tables of the reference from the code, and refuses a page that misses a name or has one too many.

People write what a key or an option means (`| key | what |`, `| option | what |`); its type and default come from the
code. `<!-- generated: NAME -->` stands where a whole table does.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, Union, get_args, get_origin

import typer
import yaml
from mkdocs.exceptions import PluginError
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ctllm_ray import cli
from ctllm_ray.base import resolve
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import config

#: Pages on which each name of a package has a heading, with a table of its options.
NAMES = {
    "sources": resolve.SOURCES,
    "stages": resolve.STAGES,
    "passes": resolve.PASSES,
    "objectives": resolve.OBJECTIVES,
    "tasks": resolve.TASKS,
}
KEYS = "recipe"
PLAIN = {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
MARKER = re.compile(r"^<!-- generated: ([a-z ]+) -->$", re.MULTILINE)
ROW = re.compile(r"^\| (`[^|]*?`(?:, `[^|]*?`)*) \| (.*) \|$", re.MULTILINE)
HEAD = re.compile(r"^\| (key|option) \| what \|\n\|---\|---\|\n", re.MULTILINE)


def filled(page: str, markdown: str) -> str:
    """The page of the reference with its tables. Raises `PluginError` with the names that miss or are too many."""
    room = PurePosixPath(page).stem
    if room == KEYS:
        markdown = _with_columns(markdown, _keys_of(Recipe), page)
        _check_keys(page, markdown)
    elif room in NAMES:
        markdown = "".join(
            _of_name(page, NAMES[room], part) for part in re.split(r"^(?=## )", markdown, flags=re.M)
        )
        headings = set(re.findall(r"^## (\S+)$", markdown, re.MULTILINE))
        missing = [name for name in resolve.names(NAMES[room]) if name not in headings]
        _refuse(page, "no section for", missing)
    return MARKER.sub(lambda marker: GENERATED[marker[1]](), markdown)


def _refuse(page: str, what: str, names: list[str]) -> None:
    if names:
        raise PluginError(f"docs/{page}: {what}: {', '.join(names)}")


def _of_name(page: str, package: str, part: str) -> str:
    """A section about one source, stage, ...: its options with types and defaults."""
    heading = re.match(r"## (\S+)\n", part)
    if not heading or heading[1] not in resolve.names(package):
        return part
    fields = resolve.options(resolve.resolve(package, heading[1])).model_fields
    part = _with_columns(part, dict(fields), f"{page}, {heading[1]}")
    described = set(re.findall(r"`(\w+)`", " ".join(names for names, _ in ROW.findall(part))))
    _refuse(
        f"{page}, {heading[1]}",
        "no description of the options",
        [name for name in fields if name not in described],
    )
    return part


def _with_columns(markdown: str, fields: dict[str, FieldInfo], where: str) -> str:
    """Every table of keys or options with the columns type and default."""
    parts = HEAD.split(markdown)
    text = parts[0]
    for kind, part in zip(parts[1::2], parts[2::2], strict=True):
        end = re.search(r"^(?!\|)", part, re.MULTILINE)
        rows, rest = part[: end.start()] if end else part, part[end.start() :] if end else ""
        text += f"| {kind} | type | default | what |\n|---|---|---|---|\n"
        text += ROW.sub(lambda row: _row(row, fields, where), rows) + rest
    return text


def _row(row: re.Match[str], fields: dict[str, FieldInfo], where: str) -> str:
    names = re.findall(r"`([^`]+)`", row[1])
    _refuse(where, "described, but not in the code", [name for name in names if name not in fields])
    kinds, defaults = ([f(fields[name]) for name in names] for f in (_kind_of_field, _default))
    return f"| {row[1]} | {_joined(kinds)} | {_joined(defaults)} | {row[2]} |"


def _joined(cells: list[str]) -> str:
    return cells[0] if len(set(cells)) == 1 else ", ".join(cells)


def _keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every key of a recipe, as a dotted path."""
    keys: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        keys[prefix + name] = field
        for part in _models(field.annotation):
            keys |= _keys_of(part, f"{prefix}{name}.")
    return keys


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _check_keys(page: str, markdown: str) -> None:
    """Each key has a row, or is named in the row of a key above it."""
    rows = {name: text for names, text in ROW.findall(markdown) for name in re.findall(r"`([^`]+)`", names)}
    missing = []
    for key, field in _keys_of(Recipe).items():
        above = [key[:i] for i, character in enumerate(key) if character == "."]
        told = any(re.search(rf"\b{key[len(name) + 1 :]}\b", rows.get(name, "")) for name in above)
        part = any(row.startswith(f"{key}.") for row in rows)
        if (
            key not in rows
            and not told
            and not part
            and list(_models(field.annotation))[:1] != [field.annotation]
        ):
            missing.append(key)
    _refuse(page, "no description of the keys", missing)


def _kind_of_field(field: FieldInfo) -> str:
    bounds = {a: getattr(m, a) for m in field.metadata for a in SIGNS if getattr(m, a, None) is not None}
    if bounds.keys() == {"ge", "le"}:
        return f"{_kind(field.annotation)} {bounds['ge']:g} to {bounds['le']:g}"
    shown = ", ".join(f"{SIGNS[a]} {bound:g}" for a, bound in bounds.items())
    return f"{_kind(field.annotation)} {shown}".strip()


def _kind(annotation: Any) -> str:
    """A type in the words of a recipe."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Union or str(type(annotation)).endswith("UnionType'>"):
        return " or ".join(_kind(argument) for argument in arguments if argument is not type(None))
    if origin in (tuple, list):
        return (
            f"list of {_kind(arguments[0])}".replace("mapping", "mappings")
            if arguments[-1] is ... or origin is list
            else "list"
        )
    if getattr(annotation, "__metadata__", None):
        return _kind(arguments[0])
    return "mapping"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "" if field.default_factory else "required"
    if value in (None, "", ()) or (isinstance(value, dict) and not value):
        return "none"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, dict):
        return f"`{yaml.safe_dump(value, default_flow_style=True).strip()}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int):
        return f"`{value}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(getattr(part, "value", part)) for part in value) + "]`"
    return f"`{value}`"


def measures() -> str:
    """Every measure by module: the first sentence of its docstring, its options, its rest."""
    text, module = "", ""
    for name in resolve.names(resolve.MEASURES):
        function = resolve.resolve(resolve.MEASURES, name)
        if name.partition(".")[0] != module:
            module = name.partition(".")[0]
            text += f"\n### {module}\n\n| measure | value | options |\n|---|---|---|\n"
        told = " ".join((inspect.getdoc(function) or "").split()).replace("|", "\\|").replace("<", "&lt;")
        options = ", ".join(
            _option(key, field) for key, field in resolve.options(function).model_fields.items()
        )
        text += f"| `{name}` | {told} | {options} |\n"
    return text


def _option(name: str, field: FieldInfo) -> str:
    default = _default(field)
    return f"`{name}`" if default == "required" else f"`{name}` ({default})"


def sizes() -> str:
    """The model sizes with their counts of parameters."""
    text = (
        "| size | layers | width | heads | FFN | context | vocabulary | parameters | without embeddings |\n"
    )
    text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    for name, size in config.SIZES.items():
        parameters = config.parameters(size)
        figures = [size.layers, size.width, size.heads, size.ffn_width, size.context_tokens, size.vocab_size]
        row = [*figures, parameters, parameters - config.embedding_parameters(size)]
        text += f"| `{name}` | {' | '.join(f'{figure:,}' for figure in row)} |\n"
    return text


def commands() -> str:
    """Every verb with its arguments and options, as `--help` has them."""
    text = "".join(_command(command.callback, "") for command in cli.app.registered_commands)
    for group in cli.app.registered_groups:
        for command in group.typer_instance.registered_commands if group.typer_instance else ():
            text += _command(command.callback, f"{group.name} ", command.name)
    return text


def _command(function: Any, group: str, name: str | None = None) -> str:
    usage, rows = [], []
    for key, parameter in inspect.signature(function, eval_str=True).parameters.items():
        info = next(m for m in parameter.annotation.__metadata__ if hasattr(m, "param_decls"))
        required = parameter.default is parameter.empty
        if isinstance(info, typer.models.ArgumentInfo):
            metavar = info.metavar or key.upper()
            usage.append(metavar if required else f"[{metavar}]...")
            rows.append((metavar, info.help, ""))
        else:
            option = next(
                (d for d in info.param_decls or () if d.startswith("--")), f"--{key.replace('_', '-')}"
            )
            shown = f"{option} {info.metavar}" if info.metavar else option
            default = "" if parameter.default in (None, "", 0, False) else f"`{parameter.default}`"
            rows.append((shown, info.help, "required" if required else default))
    title = f"{group}{name or function.__name__}"
    table = "".join(
        f"| `{a}` | {b or ''} | {c} |\n" for a, b, c in ((r[0].replace("|", "\\|"), *r[1:]) for r in rows)
    )
    told = " ".join((inspect.getdoc(function) or "").split())
    options = " [OPTIONS]" if any(row[0].startswith("-") for row in rows) else ""
    return (
        f"\n### {title}\n\n{told}\n\n```\nctllm {title} {' '.join(usage)}{options}\n```\n\n"
        f"| argument or option | | default |\n|---|---|---|\n{table}"
    )


GENERATED = {"measures": measures, "model sizes": sizes, "commands": commands}
