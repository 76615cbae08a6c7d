"""Writes TensorBoard's event files for every run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ctllm_ray.base import storage
from ctllm_ray.train.tracking.tracker import finite_only


class TensorBoard:
    """Event files of the run. For a remote run they are first written to a local folder: an
    object store cannot append."""

    def __init__(self, folder: str, next_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._remote = storage.is_remote(folder)
        self._local = (
            tempfile.mkdtemp(prefix="ctllm-tensorboard-") if self._remote else folder.removeprefix("file://")
        )
        # Steps from next_step on by an earlier run no longer count.
        self._writer = SummaryWriter(self._local, purge_step=next_step, flush_secs=10)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        for name, value in finite_only(values).items():
            self._writer.add_scalar(name, value, step)

    def note(self, step: int, kind: str, text: str) -> None:
        """A text below `events/`."""
        self._writer.add_text(f"events/{kind}", text, step)

    def flush(self) -> None:
        """Writes all; copies the event file of a remote run."""
        self._writer.flush()
        if self._remote:
            for path in sorted(Path(self._local).iterdir()):
                storage.write_bytes(storage.join(self._folder, path.name), path.read_bytes())

    def close(self) -> None:
        """The last flush."""
        self.flush()
        self._writer.close()
        if self._remote:
            shutil.rmtree(self._local)
