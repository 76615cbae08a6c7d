"""The Python API as Markdown, read from the sources: nothing is imported, so nothing that is missing can stop it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "ctllm_ray"
LOW = "---\nsearch:\n  boost: 0.001\n---\n\n"  # behind the pages that people wrote
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def packages() -> list[str]:
    """The public functions in `api`, the folders of the package that hold modules, and `top`: the modules beside
    them."""
    folders = sorted(p.name for p in (REPOSITORY / PACKAGE).iterdir() if (p / "__init__.py").is_file())
    return ["api", *(name for name in folders if modules(name)), "top"]


def modules(package: str) -> list[Path]:
    """The source files of a package that a reader can use something of, in the order of their names."""
    folder = REPOSITORY / PACKAGE
    public = folder / "api.py"
    if package == "api":
        return [public]
    files = set(folder.glob("*.py")) - {public} if package == "top" else (folder / package).rglob("*.py")
    return sorted(file for file in files if not file.stem.startswith("_"))


def index() -> str:
    """The list of packages, each with the number of its modules."""
    rows = [
        f"| [`{PACKAGE}{'' if name == 'top' else '.' + name}`]({name}.md) | {len(modules(name))} |"
        for name in packages()
    ]
    text = (
        "Made from the docstrings when the site is built. `ctllm_ray.api` is for users; the rest is inside. "
        "Names that begin with `_` are private and not listed."
    )
    return f"{LOW}# Python API\n\n{text}\n\n| package | modules |\n|---|---:|\n" + "\n".join(rows) + "\n"


def page(package: str) -> str:
    """A package's modules with their public functions and classes."""
    title = PACKAGE if package == "top" else f"{PACKAGE}.{package}"
    return f"{LOW}# {title}\n\n" + "\n".join(_module(file) for file in modules(package))


def _module(file: Path) -> str:
    name = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = [f"## {name.removeprefix(PACKAGE + '.')}\n", _text(tree)]
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            parts += [f"### {node.name}\n", _code(node), _text(node)]
            if isinstance(node, ast.ClassDef):
                parts += [_method(child) for child in node.body if _is_public_method(child)]
    return "\n".join(parts)


def _is_public_method(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")


def _method(node: ast.stmt) -> str:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return f"{_code(node)}\n{_text(node)}"


def _code(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
        fields = [ast.unparse(child) for child in node.body if isinstance(child, ast.AnnAssign)]
        lines = [
            f"class {node.name}{bases}",
            *(f"    {field}" for field in fields if not field.startswith("_")),
        ]
    else:
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        lines = [f"{kind} {node.name}({ast.unparse(node.args)}){returns}"]
        if len(lines[0]) > 100:
            arguments = ast.unparse(node.args)
            lines = [f"{kind} {node.name}(", *(f"    {a}," for a in _split(arguments)), f"){returns}"]
    return "```python\n" + "\n".join(lines) + "\n```\n"


def _split(arguments: str) -> list[str]:
    """The arguments, cut at commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(arguments[start:i].strip())
            start = i + 1
    return [*parts, arguments[start:].strip()]


def _text(node: ast.Module | Definition) -> str:
    """The docstring, with all that Markdown or HTML would take for its own escaped outside of `code`."""
    text = ast.get_docstring(node) or ""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if i % 2 else _escaped(piece) for i, piece in enumerate(pieces)) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([*\[\]#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
