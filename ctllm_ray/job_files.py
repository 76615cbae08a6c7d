"""Which files of a folder go with a submitted job: source that git tracks, and never a secret or an output.

What a job sees is unpacked on every node of the cluster, where other people work too. So the list begins with what
somebody chose to keep in git, as it stands now, and not with everything that no ignore file names: `.env`, keys and
`.aws/` are untracked in most folders, and ignored in few. Outside git the endings of source files decide.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ctllm_ray.base.errors import InputError, RecipeError

IGNORE = ".rayignore"  # leaves out tracked files too, in git's syntax, as `ray job submit` has it

#: Of files outside git these are source. JSON and text are not here: keys of cloud accounts are JSON.
SOURCE_ENDINGS = frozenset(
    {".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".md", ".jinja", ".html", ".css", ".js", ".model"}
)

_SECRET_FOLDERS = frozenset({".aws", ".azure", ".docker", ".gcloud", ".git", ".gnupg", ".kube", ".ssh"})
_SECRET_NAMES = re.compile(
    r"\.env(\..+)?|.+\.env|id_(rsa|dsa|ecdsa|ed25519).*"
    r"|\.(netrc|pgpass|npmrc|pypirc|git-credentials|htpasswd|dockercfg|s3cfg|boto|vault-token)"
    r"|.+\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk|kubeconfig)"
    # a word of its own in the name of a file that is no code: aws-credentials.json, but not tokens.py
    r"|(?!special_tokens|added_tokens)(.*[._-])?(secrets?|credentials?|passwords?|passwd|auth[_-]?tokens?|tokens?|api[_-]?keys?|access[_-]?keys?|keys"
    r"|kubeconfig|service[_-]?accounts?)([._-].*)?(?<!\.py)(?<!\.md)(?<!\.html)(?<!\.js)(?<!\.css)",
    re.IGNORECASE,
)
_OUTPUT_MARKS = ("MANIFEST.json", "PLAN.json", "RUN.json", "lineage.json", "pyvenv.cfg")
_BUILT_FOLDERS = frozenset({"__pycache__", "build", "dist", "node_modules"})
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the same files are the same archive, which Ray then does not send again


@dataclass(frozen=True)
class JobFiles:
    """What goes with a job from a folder. `names` are relative paths with `/`, sorted."""

    folder: Path
    names: tuple[str, ...]
    size_bytes: int
    sha256: str  # over names and contents
    secrets: tuple[str, ...]  # that would have gone, but for their names
    untracked: tuple[str, ...]  # neither in git nor ignored: left out
    commit: str  # empty outside git
    dirty: bool  # something that is sent is not as the commit has it

    def source(self) -> dict[str, str]:
        """What manifests say of it, beside the versions of packages."""
        facts = {"commit": self.commit, "dirty": "yes" if self.dirty else "no"} if self.commit else {}
        return facts | {"sent_sha256": self.sha256}

    def write_zip(self, path: Path) -> None:
        """Writes the files as an archive; the same bytes for the same files."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in self.names:
                archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), (self.folder / name).read_bytes())

    def summarize(self) -> Iterator[str]:
        """Lines for people: how much goes, from where, and what stays."""
        origin = f"commit {self.commit[:12]}{', with changes' if self.dirty else ''}" if self.commit else "not in git"
        yield f"{len(self.names):,} files, {self.size_bytes / 1e6:,.1f} MB go with the job ({origin})"
        if self.secrets:
            yield f"not sent, since their names say secret: {_shorten(self.secrets)}"
        if self.untracked:
            yield f"not sent, since git does not track them (`git add` what the job needs): {_shorten(self.untracked)}"


def collect(folder: Path, recipe: str) -> JobFiles:
    """The files of a folder that go with a job; `recipe` is the relative path of its recipe, which goes in any case.

    Raises `RecipeError` where the recipe's name says that it is a secret, `InputError` for a link to what is not sent.
    """
    if _is_secret(recipe):
        remedy = "give it another name: files whose names speak of keys, tokens or credentials are never sent"
        raise RecipeError("the recipe's name says that it is a secret", where=recipe, remedy=remedy)
    tracked = _git(folder, "rev-parse", "--is-inside-work-tree") == ["true"]
    found = _tracked(folder) if tracked else set(_sources(folder))
    secrets = {name for name in found if _is_secret(name)}
    names = tuple(sorted(found - secrets | {recipe}))
    _check_links(folder, names)
    changed = set(_git(folder, "diff", "--name-only", "--relative", "-z", "HEAD")) if tracked else set()
    others = set(_git(folder, "ls-files", "-z", "--others", "--exclude-standard")) if tracked else set()
    size, sha256 = _digest(folder, names)
    return JobFiles(
        folder=folder,
        names=names,
        size_bytes=size,
        sha256=sha256,
        secrets=tuple(sorted(secrets)),
        untracked=tuple(sorted(name for name in others - set(names) if name not in secrets)),
        commit="".join(_git(folder, "rev-parse", "--verify", "-q", "HEAD")) if tracked else "",
        dirty=bool(changed) or recipe in others,
    )


def _tracked(folder: Path) -> set[str]:
    """What git tracks below a folder and is still there, without what .rayignore names."""
    names = set(_git(folder, "ls-files", "-z", "--recurse-submodules"))
    if (folder / IGNORE).exists():
        names -= set(_git(folder, "ls-files", "-z", "--cached", "--ignored", f"--exclude-from={folder / IGNORE}"))
    return {name for name in names if (folder / name).is_file()}


def _sources(folder: Path) -> Iterator[str]:
    """Source files of a folder that is not in git: by their endings, without hidden, built and output folders."""
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


def _is_secret(name: str) -> bool:
    *folders, file = name.split("/")
    return bool(_SECRET_FOLDERS.intersection(folders) or _SECRET_NAMES.fullmatch(file))


def _check_links(folder: Path, names: Iterable[str]) -> None:
    inside = folder.resolve()
    for name in names:
        target = (folder / name).resolve()
        if not target.is_relative_to(inside) or _is_secret(target.relative_to(inside).as_posix()):
            remedy = "put the file itself there, or name the link in .rayignore"
            raise InputError(f"a link to {target}, which is not sent", where=str(folder / name), remedy=remedy)


def _digest(folder: Path, names: Iterable[str]) -> tuple[int, str]:
    """Bytes in all, and SHA-256 over names and contents."""
    digest, size = hashlib.sha256(), 0
    for name in names:
        content = (folder / name).read_bytes()
        size += len(content)
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return size, digest.hexdigest()


def _git(folder: Path, *arguments: str) -> list[str]:
    """What a git command prints, by lines or NULs; empty where it fails or there is no git."""
    try:
        ended = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError:
        return []
    text = os.fsdecode(ended.stdout) if ended.returncode == 0 else ""
    return [part for part in text.split("\0" if "-z" in arguments else "\n") if part]


def _shorten(names: tuple[str, ...], most: int = 5) -> str:
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
