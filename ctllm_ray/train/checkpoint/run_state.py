"""Where a run stands: all that is not tensors. Saving it at step k and going on equals never stopping."""

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
    """`batch` is the cursor in the order of the data; it runs ahead of `step` by the batches that were passed
    over."""

    step: int = 0  # optimizer updates done
    batch: int = 0  # global batches consumed or passed over: the next one has this number
    tokens: int = 0  # positions of consumed batches: what schedules and phases count
    targets: int = 0  # tokens trained, padding not counted
    passed_over: tuple[int, ...] = ()  # numbers of batches whose update was skipped
    world: int = 1  # workers that saved it
    stepper: str = "torch"
    zero_stage: int = 0
    seed: int = 0
    data: str = ""  # fingerprint of the shards that the run has been given so far (train/data/corpora.py)
    recipe: dict[str, Any] = field(default_factory=dict)  # decisions of the train section
    lineage: dict[str, str] = field(default_factory=dict)  # code commit, package versions, parent checkpoint
    recent_losses: tuple[float, ...] = ()  # window of the spike detector, nats per token

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> RunState:
        """The state that `plain` described. Raises `TypeError` unless each field is there and of its kind.

        A field that was lost would be filled by its default: a run that begins again from its first batch,
        unseen.
        """
        state = RunState(**plain)
        kinds = {field.name: _KINDS[str(field.type).partition("[")[0]] for field in fields(state)}
        wrong = [name for name, kind in kinds.items() if not isinstance(plain.get(name), kind)]
        if wrong:
            raise TypeError(f"the state has no valid {', '.join(wrong)}")
        return replace(state, passed_over=tuple(state.passed_over), recent_losses=tuple(state.recent_losses))
