"""What the inputs of a recipe hold (texts, conversations or preference pairs), and which parts support them.

A conversation is a document whose text is the JSON of its turns (corpus/readers/conversations.py). Measures
and comparisons need the contents of the turns, one after the other, without quotes, role names and escaped
line ends. A part that changes texts would break the JSON, so stages and passes must declare that they support
turns: `FORMS` in their module. Others are refused by name if an input has turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson
import pyarrow as pa

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.resolve import PASSES, SOURCES, STAGES, declared_names
from ctllm_ray.shards import schema
from ctllm_ray.shards.tokens import Form

#: Key in a manifest's provenance: turns were read as plain contents. Earlier versions read their JSON.
READ_AS = {"turns": "contents"}


def inputs(recipe: Recipe) -> dict[str, Form]:
    """What each input holds, by name, as its source declares in `FORMS`; texts by default."""
    declared = {part.name: declared_names(SOURCES, part.use, "FORMS") for part in recipe.data.inputs}
    return {name: cast(Form, (*forms, "texts")[0]) for name, forms in declared.items()}


def has_turns(recipe: Recipe) -> bool:
    """True if an input holds conversations or pairs."""
    return any(form != "texts" for form in inputs(recipe).values())


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` for a stage or pass that does not support what an input holds."""
    parts = [(STAGES, "stages", stage.use) for stage in recipe.stages]
    parts += [(PASSES, "passes", part.use) for part in recipe.passes]
    for name, form in inputs(recipe).items():
        for package, where, use in parts:
            if form not in (declared_names(package, use, "FORMS") or ("texts",)):
                raise RecipeError(
                    f"{use!r} supports texts only: {form} are stored as JSON, which it would change",
                    where=f"{where}.{use}, input {name!r}",
                    remedy="remove it, or use separate recipes for texts and conversations",
                )


def readable(table: pa.Table, form: Form) -> pa.Table:
    """The table with plain contents instead of JSON; unchanged if its documents are texts."""
    return table if form == "texts" else schema.put_column(table, "text", extract_contents(table["text"]))


def extract_contents(texts: pa.ChunkedArray) -> pa.Array:
    """The contents of the turns of conversations or pairs, joined by newlines."""
    return pa.array(
        [None if text is None else "\n".join(_contents(orjson.loads(text))) for text in texts.to_pylist()],
        pa.string(),
    )


def _contents(content: Any) -> Iterator[str]:
    turns = content if isinstance(content, list) else [turn for side in content.values() for turn in side]
    return (cast(Mapping[str, str], turn)["content"] for turn in turns)
