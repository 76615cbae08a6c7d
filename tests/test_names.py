"""Names are the field's: verbs for functions, a public class once, a module under its own name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "ctllm_ray"
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
#: As everyone imports numpy, pyarrow and torch; and two modules of others whose names mean something here.
USUAL = {"np", "pa", "pc", "pq", "nb", "F", "dist", "ray_serve", "lm_eval_task"}
IRREGULAR = {
    "begun", "bought", "brought", "built", "caught", "chosen", "done", "drawn", "driven", "felt", "forgotten",
    "found", "frozen", "given", "gone", "got", "held", "hidden", "kept", "known", "laid", "led", "left", "lent",
    "lost", "made", "meant", "met", "paid", "proven", "said", "seen", "sent", "shown", "sold", "sought", "spent",
    "spoken", "stood", "stuck", "taken", "taught", "thought", "thrown", "told", "torn", "understood", "won",
    "worn", "written",
}  # fmt: skip
#: Names that have the form of a participle and are none, or that others ask for.
EXCEPTIONS = {
    "seed": "a noun",
    "feed": "a verb, and a noun",
    "speed": "a noun",
    "compiled": "a decorator reads as what it makes: `@compiled`, as numba's users write `@jit`",
    "ended": "a view: measures take it by this name as a parameter",
    "bulleted": "a view too",
    "deployed": "the import path in configurations that users have: `serve.build:deployed`",
}


def functions() -> Iterator[tuple[Path, str]]:
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node):
                yield file, node.name


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A property is a value: `group.dropped` is a number, not an act."""
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def is_bare_participle(name: str) -> bool:
    return re.sub("^(un|re|over)", "", name) in IRREGULAR or bool(re.fullmatch(r"[a-z]{2,}ed", name))


def test_no_function_is_a_bare_participle() -> None:
    bare = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for file, name in functions()
        if is_bare_participle(name.strip("_")) and name.strip("_") not in EXCEPTIONS
    ]
    assert bare == []


def test_a_public_class_name_exists_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_a_module_is_imported_under_its_own_name() -> None:
    renamed = [
        f"{file.relative_to(PACKAGE)}: {alias.name} as {alias.asname}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname and alias.asname not in USUAL
    ]
    assert renamed == []


#: Participles that say nothing of the value. Fields of a class may have them: JSON and recipes spell them so.
EMPTY_NAMES = {"told", "asked", "given", "found", "gone"}
#: What a function does needs an object: `write_manifest`, not `write`.
BARE_FUNCTIONS = {"of", "write", "render", "show", "lines", "gather"}
#: Function names that recipes use.
RECIPE_NAMES = {"corpus/stages/lines.py: lines", "text/kernels/views.py: lines"}
#: Names of an earlier glossary, which had to be decoded; docs/design.md has the terms.
OLD_CLASSES = {
    "Answered", "ApiSubject", "Asked", "Asking", "Border", "Choosing", "Comparing", "Crowd", "EngineSubject",
    "Evaluating",
    "Examined", "Fate", "Fates", "Gate", "Gone", "Lease", "Letter", "Likeness", "Meeting", "Reply", "Seen",
    "Sent", "Sketch", "Sketches", "Subject", "Survey", "Timetable", "Told", "Wanted", "Wire", "Wish",
}  # fmt: skip


def test_no_variable_has_an_empty_name() -> None:
    fields = {
        id(node.target)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
    }
    places = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}: {name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.arg) and id(node) not in fields
        if (name := node.id if isinstance(node, ast.Name) else node.arg) in EMPTY_NAMES
    ]
    assert places == []


def test_a_public_function_is_a_verb_with_an_object() -> None:
    bare = {
        f"{file.relative_to(PACKAGE)}: {node.name}"
        for file, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in BARE_FUNCTIONS
    }
    assert bare == RECIPE_NAMES


def test_no_class_has_a_name_of_the_old_glossary() -> None:
    old = [
        f"{file.relative_to(PACKAGE)}: {node.name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in OLD_CLASSES
    ]
    assert old == []
