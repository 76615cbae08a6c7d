"""What the inputs of a recipe hold: texts, conversations, or preference pairs; and which parts can work on
them.

A conversation is a document whose text is the JSON of its turns (corpus/readers/conversations.py). Whoever
measures or compares it wants what is said in it: the contents of its turns, one after the other, and not
quotes, names of roles and `\\n` that stands for a line's end. A part that changes texts would change the
JSON, so it has to declare that it can do with turns: `FORMS` in the module of a stage or a pass. One that
does not is refused by name where an input has turns.
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

#: In a manifest's provenance, where turns were read as what is said in them: before, their JSON was.
READ_AS = {"turns": "contents"}


def inputs(recipe: Recipe) -> dict[str, Form]:
    """What each input holds by its name, as its source declares: `FORMS`, or texts where it says nothing."""
    results = {part.name: declared_names(SOURCES, part.use, "FORMS") for part in recipe.data.inputs}
    return {name: cast(Form, (*forms, "texts")[0]) for name, forms in results.items()}


def has_turns(recipe: Recipe) -> bool:
    """True where an input holds conversations or pairs."""
    return any(form != "texts" for form in inputs(recipe).values())


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` that names a stage or pass which cannot do with what an input holds."""
    parts = [(STAGES, "stages", stage.use) for stage in recipe.stages]
    parts += [(PASSES, "passes", part.use) for part in recipe.passes]
    for name, form in inputs(recipe).items():
        for package, where, use in parts:
            if form not in (declared_names(package, use, "FORMS") or ("texts",)):
                raise RecipeError(
                    f"{use!r} is for texts: of {form} it would see JSON, and change that",
                    where=f"{where}.{use}, input {name!r}",
                    remedy="leave it out, or give texts and conversations a recipe each",
                )


def readable(table: pa.Table, form: Form) -> pa.Table:
    """The table with what is said in place of JSON; as it is where its documents are texts."""
    return table if form == "texts" else schema.put_column(table, "text", extract_contents(table["text"]))


def extract_contents(texts: pa.ChunkedArray) -> pa.Array:
    """The contents of the turns of conversations or pairs, one after the other, a line end between them."""
    return pa.array(
        [None if text is None else "\n".join(_contents(orjson.loads(text))) for text in texts.to_pylist()],
        pa.string(),
    )


def _contents(result: Any) -> Iterator[str]:
    turns = result if isinstance(result, list) else [turn for side in result.values() for turn in side]
    return (cast(Mapping[str, str], turn)["content"] for turn in turns)
