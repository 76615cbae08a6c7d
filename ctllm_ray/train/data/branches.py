"""Data state of branches: where the parent run stood in each group.

A decay run that branches from a stable run at batch n continues each group's order where the stable run was.
So a document that the stable run has just used does not repeat before its epoch ends. This needs the same
rows: the same seed, width and packing, and the same shards at the front of `train.corpora`. If one of these
differs (other data, a longer context), the orders restart at batch n.
"""

from __future__ import annotations

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import Corpora, read_sections, shared_vocabulary
from ctllm_ray.train.data.data_log import Branch, Origin, read_data


def origin(recipe: Recipe, state: RunState, checkpoint_folder: str) -> Origin:
    """What `open_corpora` needs at the first start of a run from another run's checkpoint with this state.

    Raises `RecipeError` if the global batch differs, because positions are counted in batches.
    """
    assert recipe.train is not None
    then = Train.model_validate(state.recipe["train"])
    if then.batch_tokens != recipe.train.batch_tokens:
        raise RecipeError(
            f"batch_tokens is {recipe.train.batch_tokens:,}, but {then.batch_tokens:,} in "
                "the parent run",
            where="train.batch_tokens", remedy=f"set train.batch_tokens to {then.batch_tokens}",
        )  # fmt: skip
    seed = then.seed if then.seed is not None else state.recipe["seed"]
    data = read_data(checkpoint_folder.rstrip("/").rpartition("/checkpoints/")[0])
    behind = tuple(generation for generation in data.generations if generation.from_batch <= state.batch)
    sections = read_sections(recipe.token_folders())
    present = {shard.sha256 for section in sections.values() for shard in section.shards}
    shared = any(shard.sha256 in present for g in behind for corpus in g.corpora for shard in corpus.shards)
    if not shared or (seed, *_rows(then)) != (recipe.train_seed, *_rows(recipe.train)):
        return Origin(Branch(state.batch))
    other = recipe.model_copy(update={"train": then, "seed": seed})
    batches = Batches(other, Corpora(data.generations, data.branch, shared_vocabulary(sections), {}))
    return Origin(batches.branch(state.batch, len(behind)), behind)


def _rows(train: Train) -> tuple[int, str]:
    """What determines the documents of a row, besides the seed."""
    return train.sequence_tokens, train.packing
