"""Selects the files that go with a submitted job: source that git tracks, never secrets or output.

A job's files are unpacked on every node of the cluster, where other people work too. So the list starts from
files that git tracks, in their current state, and not from all files that no ignore file names: `.env`, keys
and `.aws/` are untracked in most folders, and ignored in few. Outside git, the file endings decide.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pathspec

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.secret_names import is_secret

IGNORE = ".rayignore"  # also leaves out tracked files; git's syntax, as in `ray job submit`

#: Source files outside git, by ending. JSON and text are missing: keys of cloud accounts are JSON.
SOURCE_ENDINGS = frozenset(
    {".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".md", ".jinja", ".html", ".css", ".js", ".model"}
)

_OUTPUT_MARKS = ("MANIFEST.json", "PLAN.json", "RUN.json", "lineage.json", "pyvenv.cfg")
_BUILT_FOLDERS = frozenset({"__pycache__", "build", "dist", "node_modules"})
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # equal files give an equal archive, which Ray does not send again


@dataclass(frozen=True)
class JobFiles:
    """The files of a folder that go with a job. `names` are relative paths with `/`, sorted."""

    folder: Path
    names: tuple[str, ...]
    size_bytes: int
    sha256: str  # over names and contents
    secrets: tuple[str, ...]  # left out because of their names
    untracked: tuple[str, ...]  # left out: neither tracked nor ignored by git
    no_files: tuple[str, ...]  # left out: tracked, but links to folders or to nothing
    commit: str  # empty outside git, and in a repository without a commit
    dirty: bool  # a file differs from the commit

    def source(self) -> dict[str, str]:
        """What manifests record of it, beside package versions."""
        facts = {"commit": self.commit, "dirty": "yes" if self.dirty else "no"} if self.commit else {}
        return facts | {"sent_sha256": self.sha256}

    def write_zip(self, path: Path) -> None:
        """Writes the files as an archive. Equal files give equal bytes."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in self.names:
                archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), (self.folder / name).read_bytes())

    def summarize(self) -> Iterator[str]:
        """Lines for people: how many files are sent, from which commit, and which are not."""
        origin = (
            f"commit {self.commit[:12]}{', with changes' if self.dirty else ''}"
            if self.commit
            else "no commit"
        )
        yield f"{len(self.names):,} files, {self.size_bytes / 1e6:,.1f} MB to send ({origin})"
        if self.secrets:
            yield f"not sent, because the names look like secrets: {_shorten(self.secrets)}"
        if self.untracked:
            yield (
                "not sent, because git does not track them (`git add` what the job needs): "
                f"{_shorten(self.untracked)}"
            )
        if self.no_files:
            yield f"not sent, because they are links to folders or to nothing: {_shorten(self.no_files)}"


def collect(folder: Path, recipe: str) -> JobFiles:
    """Selects the files of a folder for a job. `recipe` is
    the relative path of its recipe, which is always included.

    Raises `RecipeError` if the recipe's name says that it is
    a secret, `InputError` for a link to what is not sent.
    """
    if is_secret(recipe):
        remedy = "rename the recipe: files named after keys, tokens or credentials are never sent"
        raise RecipeError("the name of the recipe looks like a secret", where=recipe, remedy=remedy)
    checkout = _is_checkout(folder)
    listed = _keep_wanted(
        folder, set(_git(folder, "ls-files", "-z", "--recurse-submodules") if checkout else _sources(folder))
    )
    existing = {name for name in listed if os.path.lexists(folder / name)}
    results = {
        name for name in existing if (folder / name).is_file()
    }  # follows links; false for circular links
    secrets = {name for name in results if is_secret(name)}
    names = tuple(sorted(results - secrets | {recipe}))
    _check_links(folder, names)
    _check_names(folder, names)
    has_commit = checkout and bool(_git(folder, "rev-parse", "--verify", "-q", "HEAD", may_fail=True))
    changed = _git(folder, "diff", "--name-only", "--relative", "-z", "HEAD") if has_commit else []
    others = set(_git(folder, "ls-files", "-z", "--others", "--exclude-standard")) if checkout else set()
    size, sha256 = _digest(folder, names)
    return JobFiles(
        folder=folder,
        names=names,
        size_bytes=size,
        sha256=sha256,
        secrets=tuple(sorted(secrets)),
        untracked=tuple(sorted(others - set(names) - secrets)),
        no_files=tuple(sorted(existing - results)),
        commit=_git(folder, "rev-parse", "HEAD")[0] if has_commit else "",
        dirty=bool(changed) or recipe not in listed,
    )


def _is_checkout(folder: Path) -> bool:
    """True inside a repository that does not ignore the folder. Raises `InputError` if git cannot tell.

    A checkout that is taken for a plain folder would be sent with what its ignore files keep secret.
    """
    if not any((place / ".git").exists() for place in (folder.resolve(), *folder.resolve().parents)):
        return False
    _git(folder, "rev-parse", "--is-inside-work-tree")
    return not _git(folder, "check-ignore", ".", may_fail=True)


def _keep_wanted(folder: Path, names: set[str]) -> set[str]:
    """Removes the names that .rayignore lists."""
    if not (folder / IGNORE).is_file():
        return names
    lines = (folder / IGNORE).read_text(encoding="utf-8").splitlines()
    return names - set(pathspec.PathSpec.from_lines("gitignore", lines).match_files(names))


def _sources(folder: Path) -> Iterator[str]:
    """Source files of a folder outside git: by ending, without hidden, build and output folders."""
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _BUILT_FOLDERS
            and not any(Path(place, name, mark).exists() for mark in _OUTPUT_MARKS)
        ]
        for name in files:
            if not name.startswith(".") and Path(name).suffix in SOURCE_ENDINGS:
                yield Path(place, name).relative_to(folder).as_posix()


def _check_links(folder: Path, names: Sequence[str]) -> None:
    """Raises `InputError` for a link to a file that is not sent itself: the link
    would smuggle its content out."""
    inside, sent = folder.resolve(), set(names)
    for name in names:
        target = (folder / name).resolve()
        if target == inside / name:
            continue
        if not target.is_relative_to(inside) or target.relative_to(inside).as_posix() not in sent:
            remedy = f"replace the link with the file, or add the link to {IGNORE}"
            raise InputError(
                f"a link points to {target}, which is not sent", where=str(folder / name), remedy=remedy
            )


def _check_names(folder: Path, names: Iterable[str]) -> None:
    """Raises `InputError` for a file name that an archive cannot hold."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            remedy = f"rename the file, or add it to {IGNORE}"
            raise InputError(
                "a file name is not UTF-8", where=repr(str(folder / name)), remedy=remedy
            ) from None


def _digest(folder: Path, names: Iterable[str]) -> tuple[int, str]:
    """The total size in bytes, and SHA-256 over names and contents."""
    digest, size = hashlib.sha256(), 0
    for name in names:
        content = (folder / name).read_bytes()
        size += len(content)
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return size, digest.hexdigest()


def _git(folder: Path, *arguments: str, may_fail: bool = False) -> list[str]:
    """The output of a git command, split at lines or NULs.
    Raises `InputError` if it fails, unless `may_fail`."""
    try:
        ended = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
        reason = os.fsdecode(ended.stderr).strip().partition("\n")[0] if ended.returncode else ""
    except OSError as error:
        ended, reason = None, str(error)
    if ended is None or (ended.returncode and not may_fail):
        remedy = (
            "install git, or allow it to read this repository: git config --global --add "
            "safe.directory FOLDER"
        )
        raise InputError(f"git cannot read the repository: {reason}", where=str(folder), remedy=remedy)
    text = os.fsdecode(ended.stdout) if not ended.returncode else ""
    return [part for part in text.split("\0" if "-z" in arguments else "\n") if part]


def _shorten(names: tuple[str, ...], most: int = 5) -> str:
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
