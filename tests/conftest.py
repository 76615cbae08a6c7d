"""Fixtures that many tests share, and the order in which tests are handed out."""

from __future__ import annotations

import importlib
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray.base import outage, resolve

#: Tests run beside each other, one a core: more threads would wait for each other. Before numpy and torch come in.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
REPOSITORY = Path(__file__).resolve().parents[1]
AddModule = Callable[[str, str, str], None]
RAY = "ray"  # the scope of all files with tests that start Ray


@pytest.hookimpl(optionalhook=True)  # of xdist; its own groups do not work with pytest 9.2
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file goes to one process, all files that start Ray to the same one: a second Ray would starve the first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByRay(LoadScopeScheduling):
        """Scopes are files, but for those that start Ray, which are one."""

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return RAY if _starts_ray(file) else file

    return ByRay(config, log)


@cache
def _starts_ray(file: str) -> bool:
    return "pytest.mark.cluster" in (REPOSITORY / file).read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray's tests go first, since they take longest: those that have a Ray of their own, then those that share one."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if not item.get_closest_marker("cluster"):
        return 2
    return "cluster" in getattr(item, "fixturenames", ())


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that do not answer are given up after a moment."""
    monkeypatch.setattr(outage, "PATIENCE_S", 0.3)
    monkeypatch.setattr(outage, "FIRST_S", 0.1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; a test that asks for it is skipped where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


class SharedRay:
    """A Ray with two CPUs, as `ctllm` starts it: up from when it is first asked for, down while a test has its own.

    Its workers work in `folder`, where relative paths mean the same as in a command that is run there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()

    def start(self) -> None:
        """Starts it where it is down."""
        import ray

        from ctllm_ray.serving.ray.application import serving_session

        if not ray.is_initialized():
            with chdir(self.folder):
                self._open.enter_context(serving_session(2, 128))

    @property
    def address(self) -> str:
        """What RAY_ADDRESS names it by."""
        import ray

        return str(ray.get_runtime_context().gcs_address)

    def stop(self) -> None:
        """Ends it where it is up."""
        self._open.close()


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRay]:
    one = SharedRay(tmp_path_factory.mktemp("ray"))
    yield one
    one.stop()


@pytest.fixture(scope="session")
def cluster(shared_ray: SharedRay) -> None:
    """Some local Ray with two CPUs, the same for all tests that ask for it."""
    shared_ray.start()


@pytest.fixture
def no_ray(shared_ray: SharedRay) -> Iterator[None]:
    """A process without Ray, before and after: for tests that start one of their own."""
    import ray

    shared_ray.stop()
    yield
    ray.shutdown()


@pytest.fixture
def add_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddModule]:
    """Adds a file to a package, in a folder joined to the package's path: its name, and its source."""

    def add(package: str, name: str, source: str) -> None:
        folder = tmp_path / "added" / package
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
        forget()

    def forget() -> None:
        for cached in (resolve.names, resolve.module_names, resolve.resolve, resolve.declared_value):
            cached.cache_clear()

    yield add
    monkeypatch.undo()
    forget()
