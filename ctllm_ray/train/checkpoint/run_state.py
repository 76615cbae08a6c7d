"""The state of a run besides its tensors. Law: saving at step k and resuming equals never stopping."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "str": str,
    "dict": dict,
    "tuple": (list, tuple),
}  # in JSON


@dataclass(frozen=True)
class RunState:
    """`batch` is the position in the data order. It runs ahead of `step` by the number of skipped batches."""

    step: int = 0  # optimizer updates done
    batch: int = 0  # global batches consumed or skipped; the next one has this number
    tokens: int = 0  # positions of consumed batches; schedules and phases use it
    targets: int = 0  # trained tokens, without padding
    passed_over: tuple[int, ...] = ()  # numbers of batches without an update
    world: int = 1  # workers that saved it
    stepper: str = "torch"
    zero_stage: int = 0
    seed: int = 0
    data: str = ""  # fingerprint of the shards given to the run so far (train/data/corpora.py)
    recipe: dict[str, Any] = field(default_factory=dict)  # decisions of the section `train`
    lineage: dict[str, str] = field(default_factory=dict)  # code commit, package versions, parent checkpoint
    recent_losses: tuple[float, ...] = ()  # window of the spike detector, nats per token

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> RunState:
        """Restores the state from its plain form. Raises `TypeError` if a field is
        missing or has a wrong type.

        A default for a missing field could silently restart the run from its first batch.
        """
        state = RunState(**plain)
        kinds = {field.name: _KINDS[str(field.type).partition("[")[0]] for field in fields(state)}
        wrong = [name for name, kind in kinds.items() if not isinstance(plain.get(name), kind)]
        if wrong:
            raise TypeError(f"the state has no valid {', '.join(wrong)}")
        return replace(state, passed_over=tuple(state.passed_over), recent_losses=tuple(state.recent_losses))
