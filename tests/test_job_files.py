"""Which files go with a submitted job."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ctllm_ray import job_files
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.cli import run

SOURCE = (
    "recipe.yaml",
    "mine.py",
    "env.py",
    "serving/api/keys.py",
    "text/tokens.py",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "data/monkey.yaml",
)
SECRETS = (
    ".env",
    ".env.production",
    "prod.env",
    ".aws/credentials",
    ".ssh/config",
    "id_ed25519",
    "server.pem",
    "tls.key",
    ".netrc",
    ".git-credentials",
    "hf_token",
    "token.txt",
    "gcp-service-account.json",
    "aws_credentials.json",
    "deploy/secrets.yaml",
    "api_keys.toml",
    "cluster.kubeconfig",
    ".env~",
    "server.pem.bak",
    "awsKeys.csv",
    "gcp-key.json",
    "keys/prod.yaml",
    "secrets/prod.yaml",
    "terraform.tfvars",
    "Passwords.xlsx",
    "kaggle.json",
    "密码.yaml",
)
OUTPUTS = ("out/tiny/1/clean/MANIFEST.json", "out/tiny/1/clean/kept/00000-000.arrow", ".venv/lib/libtorch.so")


def write(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *person, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with source in its one commit, and with secrets and outputs that no ignore file names."""
    git(tmp_path, "init", "-q")
    write(tmp_path, SOURCE)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "source")
    write(tmp_path, SECRETS + OUTPUTS)
    return tmp_path


def test_what_git_tracks_goes_and_nothing_else(checkout: Path) -> None:
    files = job_files.collect(checkout, "recipe.yaml")
    assert set(files.names) == set(SOURCE)
    assert files.size_bytes == sum(map(len, SOURCE))
    assert set(files.untracked) == set(SECRETS + OUTPUTS)  # told, not sent
    assert (files.commit, files.dirty) == (git(checkout, "rev-parse", "HEAD"), False)


def test_a_secret_does_not_go_even_where_git_tracks_it_and_is_told(checkout: Path) -> None:
    git(checkout, "add", "-f", *SECRETS)
    files = job_files.collect(checkout, "recipe.yaml")
    assert set(files.names) == set(SOURCE)
    assert set(files.secrets) == set(SECRETS)
    assert any("the names look like secrets" in line for line in files.summarize())


def test_outside_git_only_source_files_go(tmp_path: Path) -> None:
    write(tmp_path, (*SOURCE, *SECRETS, *OUTPUTS, "model.safetensors", "crawl.jsonl", "build/lib/old.py"))
    (tmp_path / "out/tiny/1/clean/report.html").write_text("a report")
    files = job_files.collect(tmp_path, "recipe.yaml")
    assert set(files.names) == {name for name in SOURCE if not name.endswith(".json")}
    assert (files.commit, files.dirty) == ("", False)
    assert "commit" not in files.source()


def test_a_recipe_goes_though_git_does_not_know_it(checkout: Path) -> None:
    write(checkout, ["new.yaml"])
    files = job_files.collect(checkout, "new.yaml")
    assert set(files.names) == {*SOURCE, "new.yaml"}
    assert files.dirty  # what is sent is not what the commit has
    assert "new.yaml" not in files.untracked


def test_a_recipe_with_the_name_of_a_secret_is_refused(checkout: Path) -> None:
    write(checkout, ["credentials.yaml"])
    with pytest.raises(RecipeError, match="looks like a secret"):
        job_files.collect(checkout, "credentials.yaml")


def test_a_changed_file_goes_as_it_is_now_and_the_commit_is_called_dirty(checkout: Path) -> None:
    before = job_files.collect(checkout, "recipe.yaml")
    (checkout / "mine.py").write_text("changed")
    after = job_files.collect(checkout, "recipe.yaml")
    assert (after.commit, after.dirty) == (before.commit, True)
    assert after.sha256 != before.sha256
    assert after.source() == {"commit": before.commit, "dirty": "yes", "sent_sha256": after.sha256}
    (checkout / "mine.py").unlink()
    assert "mine.py" not in job_files.collect(checkout, "recipe.yaml").names


def test_a_file_that_changes_its_name_changes_the_hash(checkout: Path) -> None:
    before = job_files.collect(checkout, "recipe.yaml")
    git(checkout, "mv", "mine.py", "ours.py")
    assert job_files.collect(checkout, "recipe.yaml").sha256 != before.sha256


def test_tracked_files_that_rayignore_names_stay(checkout: Path) -> None:
    (checkout / ".rayignore").write_text("text/\n")
    git(checkout, "add", ".rayignore")
    assert set(job_files.collect(checkout, "recipe.yaml").names) == {*SOURCE, ".rayignore"} - {
        "text/tokens.py"
    }


def test_rayignore_counts_in_submodules_and_outside_git(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    module, plain = tmp_path_factory.mktemp("module"), tmp_path_factory.mktemp("plain")
    git(module, "init", "-q")
    write(module, ["a.py", "big.py"])
    git(module, "add", "-A")
    git(module, "commit", "-q", "-m", "module")
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(module), "sub")
    (checkout / ".rayignore").write_text("big.py\n!sub/a.py\n")
    assert set(job_files.collect(checkout, "recipe.yaml").names) == {*SOURCE, ".gitmodules", "sub/a.py"}
    write(plain, ["recipe.yaml", "a.py", "big.py"])
    (plain / ".rayignore").write_text("big.py\n")
    assert job_files.collect(plain, "recipe.yaml").names == ("a.py", "recipe.yaml")


def test_a_repository_that_git_cannot_read_is_not_taken_for_a_plain_folder(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".git" / "HEAD").rename(checkout / ".git" / "HEAD.lost")
    with pytest.raises(InputError, match="git cannot read the repository: fatal"):
        job_files.collect(checkout, "recipe.yaml")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"git cannot read the repository: \[Errno 2\] No such file"):
        job_files.collect(checkout, "recipe.yaml")


def test_a_repository_without_a_commit_sends_what_is_added(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, ["recipe.yaml", "mine.py", "yours.py"])
    git(tmp_path, "add", "recipe.yaml", "mine.py")
    files = job_files.collect(tmp_path, "recipe.yaml")
    assert (files.names, files.untracked, files.commit) == (("mine.py", "recipe.yaml"), ("yours.py",), "")
    assert "no commit" in next(files.summarize())


def test_a_folder_that_the_repository_around_it_ignores_is_a_plain_folder(checkout: Path) -> None:
    write(checkout, ["scratch/recipe.yaml", "scratch/mine.py", "scratch/.env"])
    (checkout / ".gitignore").write_text("scratch/\nloose.yaml\n")
    assert job_files.collect(checkout / "scratch", "recipe.yaml").names == ("mine.py", "recipe.yaml")
    write(checkout, ["loose.yaml"])
    assert job_files.collect(
        checkout, "loose.yaml"
    ).dirty  # the recipe is not in the commit, though nothing changed


def test_links_to_folders_and_to_nothing_are_told(checkout: Path) -> None:
    for name, target in (
        ("folder", "text"),
        ("broken", "not there"),
        ("circle", "circle"),
        ("good.py", "mine.py"),
    ):
        (checkout / name).symlink_to(target)
        git(checkout, "add", name)
    files = job_files.collect(checkout, "recipe.yaml")
    assert set(files.names) == {*SOURCE, "good.py"}
    assert files.no_files == ("broken", "circle", "folder")
    assert any("links to folders or to nothing: broken, circle, folder" in line for line in files.summarize())


def test_a_name_that_is_not_utf8_is_refused_by_name(checkout: Path) -> None:
    Path(os.fsdecode(os.fsencode(checkout) + b"/\xd6\xd0.py")).write_text("")
    git(checkout, "add", "-A", "*.py")
    with pytest.raises(InputError, match="name is not UTF-8"):
        job_files.collect(checkout, "recipe.yaml")


def test_of_a_folder_below_the_repository_only_that_folder_goes(checkout: Path) -> None:
    assert job_files.collect(checkout / "text", "tokens.py").names == ("tokens.py",)


def test_a_link_out_of_the_folder_or_to_a_secret_is_refused(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "passwd"
    outside.write_text("root")
    for target in (outside, checkout / ".env", checkout / OUTPUTS[0]):
        (checkout / "link.py").unlink(missing_ok=True)
        (checkout / "link.py").symlink_to(target)
        git(checkout, "add", "link.py")
        with pytest.raises(InputError, match="which is not sent"):
            job_files.collect(checkout, "recipe.yaml")


def test_the_archive_holds_the_files_and_is_the_same_for_the_same_files(
    checkout: Path, tmp_path: Path
) -> None:
    files = job_files.collect(checkout, "recipe.yaml")
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    files.write_zip(first)
    (checkout / "mine.py").touch()
    files.write_zip(second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            name: name for name in SOURCE
        }


def test_a_dry_run_lists_what_would_go_and_asks_no_cluster(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    repository = Path(__file__).parents[1]
    (checkout / "recipe.yaml").write_bytes((repository / "jobs/recipes/tiny.yaml").read_bytes())
    assert run(["submit", "prepare", "recipe.yaml", "--address", "http://127.0.0.1:1", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(SOURCE)] == sorted(SOURCE)
    assert lines[len(SOURCE)].startswith(f"{len(SOURCE)} files, ")
    assert "with changes" in lines[len(SOURCE)]
