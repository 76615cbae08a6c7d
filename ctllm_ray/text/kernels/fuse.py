"""A recipe's measures compiled into one pass over an Arrow string column.

For each document the generated kernel decodes the UTF-8, computes the views that the measures name (views.py)
once, and calls each measure. It is ordinary source text, written to the kernel cache so that numba can cache
the machine code beside it; the same source runs interpreted in tests. Measures and views are compiled one by
one and cached too, so a new combination links in a second or two what is already there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from ctllm_ray.base.resolve import MEASURES, resolve
from ctllm_ray.text.kernels import characters, codepoints, views
from ctllm_ray.text.kernels.compiled import cache_folder, compiled

#: A measure and its options: ("repetition.covered_share", (("n", 5),)).
Line = tuple[str, tuple[tuple[str, Any], ...]]
ROOTS = ("points", "table")


def reads(function: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters of a measure or view: what it reads."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def is_kernel(name: str) -> bool:
    """True if a measure reads code points; False if it reads a `text` or `url` string, a column `texts`, or what a
    source knows."""
    return reads(resolve(MEASURES, name))[0] not in {"text", "url", "texts", "http_status"}


def needed_views(functions: Sequence[Callable[..., Any]]) -> list[str]:
    """The views that the functions need, directly or indirectly, each after its own requirements."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or name in ROOTS:
            return
        for other in reads(getattr(views, name)):
            visit(other)
        order.append(name)

    for function in functions:
        for name in reads(function):
            visit(name)
    return order


def source(lines: Sequence[Line]) -> str:
    """The Python source of the fused kernel: `kernel(data, offsets, table, out)` fills out[row, line]."""
    functions = [resolve(MEASURES, name) for name, _ in lines]
    body = ["points = decode(data, offsets[row], offsets[row + 1])"]
    body += [f"{v} = view_{v}({', '.join(reads(getattr(views, v)))})" for v in needed_views(functions)]
    for i, (function, (_, options)) in enumerate(zip(functions, lines, strict=True)):
        arguments = ", ".join([*reads(function), *(repr(value) for _, value in options)])
        body.append(f"out[row, {i}] = measure_{i}({arguments})")
    inner = "\n".join(f"        {line}" for line in body)
    return f"def kernel(data, offsets, table, out):\n    for row in range(len(offsets) - 1):\n{inner}\n"


def _link(module: ModuleType, lines: Sequence[Line], wrap: Callable[[Any], Any]) -> Callable[..., None]:
    """The kernel of a loaded module with its wrapped measures and views linked in."""
    functions = [resolve(MEASURES, name) for name, _ in lines]
    module.decode = wrap(codepoints.decode)  # type: ignore[attr-defined]
    for name in needed_views(functions):
        setattr(module, f"view_{name}", wrap(getattr(views, name)))
    for i, function in enumerate(functions):
        setattr(module, f"measure_{i}", wrap(function))
    return wrap(module.kernel)


def _positional(function: Any) -> Any:
    """The function with keyword-only options made positional: numba does not support keyword-only ones."""
    code = function.__code__
    plain = code.replace(co_argcount=code.co_argcount + code.co_kwonlyargcount, co_kwonlyargcount=0)
    positional = FunctionType(plain, function.__globals__, function.__name__)
    positional.__module__, positional.__qualname__ = function.__module__, function.__qualname__
    return positional


@cache
def _compile_one(function: Any) -> Callable[..., Any]:
    return compiled(_positional(function))


@cache
def kernel(lines: tuple[Line, ...]) -> Callable[..., None]:
    """The compiled kernel of the measures; from the disk cache if it was compiled before."""
    return _link(_load(source(lines)), lines, _compile_one)


def interpret(lines: tuple[Line, ...]) -> Callable[..., None]:
    """The same kernel run by Python. Tests compare the compiled kernel with it."""
    return _link(_load(source(lines)), lines, _positional)


def _load(text: str) -> ModuleType:
    """A module made of the source, from a file in the kernel cache: numba caches functions of files only."""
    name = f"fused_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    path = cache_folder() / f"{name}.py"
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        Path(temporary).replace(path)  # in one step: another process may write the same file
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where numba looks it up when it loads machine code from the cache
    spec.loader.exec_module(module)
    return module


def measure(texts: pa.Array, lines: tuple[Line, ...]) -> np.ndarray:
    """float32[rows, lines]: the value of each measure of
    each text. `texts` is a string array without nulls."""
    out = np.zeros((len(texts), len(lines)), np.float32)
    if lines and len(texts):
        kernel(lines)(*codepoints.buffers(texts), characters.table(), out)
    return out
