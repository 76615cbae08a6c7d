"""The command line as a user meets it: a mistake ends in one message and an exit code of its own, in no traceback."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctllm_ray.base import recipe
from ctllm_ray.cli import run
from ctllm_ray.corpus import pipeline
from ctllm_ray.shards import manifest
from tests.conftest import SharedRay
from tests.corpus.conftest import page, run_here
from tests.corpus.test_section import digests

COMMAND = [sys.executable, "-m", "ctllm_ray"]
WAIT_S = 300


def lines(count: int, part: int = 0) -> str:
    rows = [{"text": page(part * 1000 + i), "url": f"http://host.example/{part}/{i}"} for i in range(count)]
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def write_recipe(folder: Path, pattern: str, **changed: object) -> str:
    """A recipe file with one rule of each kind; returns its path."""
    plain: dict[str, Any] = {
        "name": "cli",
        "version": "1",
        "seed": 1,
        "root": str(folder / "out"),
        "data": {"inputs": [{"use": "jsonl", "path": pattern}], "max_error_share": 0.1},
        "stages": [
            {
                "use": "measure",
                "rules": [
                    {"use": "document.char_count", "min": 60},
                    {"use": "repetition.covered_share", "n": 2, "max": 0.5},
                    {"use": "language.label", "in": ["zh", "ja", ""]},
                ],
            }
        ],
        "resources": {"workers": 2, "object_store_mb": 100},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(plain | changed, allow_unicode=True), encoding="utf-8")
    return str(path)


@pytest.fixture
def begun(tmp_path: Path) -> str:
    """A recipe over three small files of which nothing has been worked yet."""
    (tmp_path / "crawl").mkdir()
    for part in range(3):
        (tmp_path / "crawl" / f"{part}.jsonl").write_text(lines(20, part), encoding="utf-8")
    return write_recipe(tmp_path, f"{tmp_path}/crawl/*.jsonl")


@pytest.fixture
def finished(begun: str) -> str:
    """The same, worked."""
    pipeline.prepare(recipe.load_recipe(begun), run_here)
    return begun


def outside(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a cluster."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= options.pop("env", {})
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=WAIT_S, **options
    )


def assert_one_message(error: str, *parts: str) -> None:
    assert "Traceback" not in error
    assert error.startswith("ctllm: ")
    assert error.count("ctllm: ") == 1
    for part in parts:
        assert part in error


def unboxed(shown: str) -> str:
    """The letters of what stands in a box, which wraps its lines."""
    return "".join(shown.replace("│", "").split())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([], ["prepare", "report", "why", "replay", "Exit codes"]),
        (["prepare"], ["RECIPE", "jobs/recipes/tiny.yaml", "KEY=VALUE", "root=out"]),
        (["report"], ["RECIPE", "--to", "report.html"]),
        (["why"], ["RECIPE", "ID_OR_URL", "#1234"]),
        (["replay"], ["RECIPE", "--set", "document.char_count.max=20000"]),
    ],
)
def test_help_names_the_arguments_with_an_example(
    command: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--help"]) == 0
    shown = unboxed(capsys.readouterr().out)
    assert [part for part in says if unboxed(part) not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "nosuch"),
        (["prepare"], "RECIPE"),
        (["prepare", "--bogus", "x"], "--bogus"),
        (["why", "recipe.yaml"], "ID_OR_URL"),
        (["why", "recipe.yaml", "root=out"], "page or the file last"),
        (["replay", "recipe.yaml", "--set"], "--set"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert unboxed(says) in unboxed(error)
    assert "Traceback" not in error


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "prepare" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stage=[]", "did you mean 'stages'"),
        ("seed=many", "seed"),
        ("seed", "write key=value"),
        ("=1", "write key=value"),
        ("data.inputs=[{use: jsonl", "not YAML"),
        ("data.inputs.parquet.path=x", "valid names: jsonl"),
        ("data.inputs.jsonl.txet=body", "did you mean 'text'"),
        ("data.inputs.jsonl.use=jsonp", "did you mean 'jsonl'"),
        ("data.max_error_share=2", "less than or equal to 1"),
        ("stages.measure.use=mesure", "did you mean 'measure'"),
        (
            "stages.measure.rules.document.char_count.use=document.char_cont",
            "did you mean 'document.char_count'",
        ),
        ("stages.measure.rules.document.char_count.max=10", "no value is at least"),
        ("stages.measure.rules.document.char_count.min=.nan", "finite"),
        ("stages.measure.rules.document.char_count.in=[zh]", "use `in` for a label"),
        ("stages.measure.rules.repetition.covered_share.n2.n=99", "n"),
        ("version=2026-01-01", "quotes around the value"),
        ("seed.x=1", "plain value"),
    ],
)
def test_a_wrong_recipe_is_explained(
    begun: str, override: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prepare", begun, override]) == 2
    assert_one_message(capsys.readouterr().err, says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "the recipe file does not exist"),
        (b"", "a mapping of keys"),
        (b"- a\n- b\n", "a mapping of keys"),
        (b"name: [\n", "not readable as YAML"),
        (b"name: \xff\xfe\n", "not readable as YAML"),
        (b"name: x\n", "is missing"),
        (b"name: x\nseed: 1\nseed: 2\n", "the key 'seed' occurs twice"),
        (b"name: x\nsed: 1\n", "did you mean 'seed'"),
        (b"name: x\n1: y\n", "Keys should be strings"),
    ],
)
def test_a_file_that_is_no_recipe_is_explained(
    tmp_path: Path, content: bytes | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_bytes(content)
    assert run(["prepare", str(path)]) == 2
    assert_one_message(capsys.readouterr().err, says, str(path), "remedy:")


def test_a_folder_as_recipe_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", str(tmp_path)]) == 2
    assert_one_message(capsys.readouterr().err, str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{0}/crawl/*.parquet", "no file matches"),
        ("{0}/none/*.jsonl", "does not exist"),
        ("{0}/crawl", "the path is a folder"),
        ("{0}/crawl/3.jsonl", "no file matches"),
        ("nosuch://bucket/a", "nosuch"),
    ],
)
def test_a_wrong_input_is_explained(
    begun: str, tmp_path: Path, pattern: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pattern.format(tmp_path)
    assert run(["prepare", begun, f"data.inputs.jsonl.path={path}"]) == 3
    assert_one_message(capsys.readouterr().err, says, path, "remedy:")
    assert not (tmp_path / "out").exists()


def test_no_inputs_is_explained(begun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", begun, "data.inputs=[]"]) == 3
    assert_one_message(capsys.readouterr().err, "no inputs", "data.inputs")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for found in (folder, *folder.iterdir()):
        found.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("kind", "code"), [("input", 3), ("output", 5)])
def test_no_permission_is_explained(open_folder: Path, kind: str, code: int) -> None:
    (open_folder / "crawl").mkdir()
    (open_folder / "crawl" / "0.jsonl").write_text(lines(3), encoding="utf-8")
    path = write_recipe(open_folder, f"{open_folder}/crawl/*.jsonl")
    locked = open_folder / ("crawl" if kind == "input" else "out")
    locked.mkdir(exist_ok=True)
    locked.chmod(0o000 if kind == "input" else 0o555)
    written = open_folder / "stderr"
    written.touch()
    assert run_as_nobody(["prepare", path], written) == code
    assert_one_message(written.read_text(), "Permission denied", str(locked), "permission")


def run_as_nobody(arguments: list[str], written: Path) -> int:
    """The exit code of a command line run by a user who owns nothing: to root every file is open."""
    from ctllm_ray.corpus import terminal  # noqa: F401  # this Python itself may be closed to others

    recipe.load_recipe(arguments[1])
    child = os.fork()
    if child == 0:
        with written.open("w") as sys.stderr:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            code = run(arguments)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_another_recipe_under_the_same_version_is_refused(
    finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    override = "stages.measure.rules.document.char_count.min=61"
    assert run(["prepare", finished, override]) == 6
    assert_one_message(capsys.readouterr().err, "stages.measure.rules.document.char_count.min: 60", "version")


def test_a_dropped_and_an_added_rule_are_named(finished: str, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "[{use: document.char_count, min: 60}, {use: line.count}]"
    assert run(["prepare", finished, f"stages.measure.rules={rules}"]) == 6
    error = capsys.readouterr().err
    assert_one_message(error, "stages.measure.rules.line.count: null ->")
    assert "stages.measure.rules.document.char_count" not in error


def test_too_many_unreadable_records_are_counted_by_kind(
    begun: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crawl" / "1.jsonl").write_text("{\n" * 20 + "[]\n", encoding="utf-8")
    with pytest.raises(Exception, match="could not be read"):
        pipeline.prepare(recipe.load_recipe(begun), run_here)
    assert run(["prepare", begun]) == 4
    error = capsys.readouterr().err
    assert_one_message(error[error.index("ctllm:") :], "invalid_json 20", "wrong_type 1", "max_error_share")
    assert run(["prepare", begun, "data.max_error_share=0.6"]) == 0


def test_output_that_cannot_be_written_is_explained(begun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", begun, "root=/proc/none"]) == 5
    assert_one_message(capsys.readouterr().err, "/proc/none", "remedy:")
    assert run(["prepare", begun, f"root={begun}"]) == 5
    assert_one_message(capsys.readouterr().err, "a part of the path is a file")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1"])
def test_a_ray_that_is_not_there_is_explained(
    begun: str, address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert run(["prepare", begun]) == 9
    error = capsys.readouterr().err
    assert_one_message(error[error.index("ctllm:") :], f"RAY_ADDRESS={address}", "unset it")


@pytest.mark.parametrize("command", ["report", "why", "replay"])
def test_a_section_that_has_not_finished_is_explained(
    begun: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, begun, *(["some#1"] if command == "why" else [])]) == 7
    assert_one_message(capsys.readouterr().err, "has not finished", "ctllm prepare")


def test_a_damaged_manifest_is_explained(finished: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(recipe.load_recipe(finished).folder("clean"), manifest.MANIFEST)
    path.write_text("{", encoding="utf-8")
    assert run(["replay", finished]) == 5
    assert_one_message(capsys.readouterr().err, "not valid JSON", str(path))
    path.write_text("{}", encoding="utf-8")
    assert run(["replay", finished]) == 5
    assert_one_message(capsys.readouterr().err, "the manifest is damaged", str(path))


@pytest.mark.parametrize("command", ["report", "why", "replay"])
def test_a_damaged_or_missing_shard_is_explained(
    finished: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recipe.load_recipe(finished).folder("clean")
    shard = Path(folder, manifest.read_manifest(folder).paths("kept")[0])
    arguments = [command, finished, *(["crawl/none#1"] if command == "why" else [])]
    shard.write_bytes(shard.read_bytes()[:100])
    assert run(arguments) == 5
    assert_one_message(capsys.readouterr().err, "shard cannot be read", str(shard))
    shard.unlink()
    assert run(arguments) == 5
    assert_one_message(capsys.readouterr().err, "No such file", str(shard))


def test_a_page_that_is_not_there_is_explained(finished: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", finished, "crawl/9.jsonl#0"]) == 7
    assert_one_message(capsys.readouterr().err, "'crawl/9.jsonl#0'", "check the id")


def test_why_shows_the_verdict_each_rule_and_the_text(
    finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("crawl/0.jsonl#0", "http://host.example/0/0"):
        assert run(["why", finished, key]) == 0
        shown = capsys.readouterr().out
        assert page(0)[:30] in shown
        assert "document.char_count" in shown
        assert "repetition.covered_share.n2" in shown
        assert "verdict" in shown


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("document.char_cont.min=3", "did you mean 'document.char_count'"),
        ("document.char_count.mim=3", "did you mean 'min'"),
        ("document.char_count.min=three", "'three' is not a number"),
        ("document.char_count.min=nan", "a threshold must be a finite number"),
        ("document.char_count.max=10", "no value is at least 60 and at most 10"),
        ("language.label.min=1", "use `in` for a label"),
        ("document.char_count.min", "RULE.BOUND=NUMBER"),
        ("min=3", "RULE.BOUND=NUMBER"),
    ],
)
def test_a_wrong_replay_setting_is_explained(
    finished: str, setting: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", finished, "--set", setting]) == 2
    error = capsys.readouterr().err
    assert_one_message(error, says, f"--set {setting}")
    assert "pydantic" not in error


def test_replay_says_what_would_change_or_that_nothing_would(
    finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", finished]) == 0
    assert "no decision would change" in capsys.readouterr().out
    assert run(["replay", finished, "--set", "document.char_count.min=none"]) == 0
    assert "document.char_count -> kept" in capsys.readouterr().out


def test_replay_of_a_recipe_without_rules_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(lines(2), encoding="utf-8")
    path = write_recipe(tmp_path, f"{tmp_path}/a.jsonl", stages=[{"use": "normalize"}])
    pipeline.prepare(recipe.load_recipe(path), run_here)
    assert run(["replay", path]) == 2
    assert_one_message(capsys.readouterr().err, "no rules")


def test_the_report_goes_where_it_is_told(
    finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", finished]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text(encoding="utf-8").startswith("<!")
    assert run(["report", finished, "--to", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").exists()


def test_the_report_never_takes_the_place_of_a_folder_or_a_device(
    finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", finished, "--to", str(tmp_path)]) == 5
    assert_one_message(capsys.readouterr().err, "a folder", str(tmp_path))
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert run(["report", finished, "--to", str(tmp_path / "pipe")]) == 5
    assert_one_message(capsys.readouterr().err, "not a regular file")
    assert (tmp_path / "pipe").is_fifo()


def test_the_process_ends_with_the_code_and_writes_no_traceback(begun: str, tmp_path: Path) -> None:
    for arguments, code in [
        (["nosuch"], 2),
        (["prepare", "none.yaml"], 2),
        (["prepare", begun, f"data.inputs.jsonl.path={tmp_path}"], 3),
        (["report", begun], 7),
    ]:
        ended = outside(*arguments)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
    job = subprocess.run(
        [sys.executable, "-m", "jobs.prepare", "none.yaml"], capture_output=True, text=True, timeout=WAIT_S
    )
    assert job.returncode == 2
    assert_one_message(job.stderr, "the recipe file does not exist")


def test_a_terminal_without_chinese_ends_no_command(finished: str) -> None:
    ended = outside("why", finished, "crawl/0.jsonl#0", env={"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 0, ended.stderr
    assert "\\u" in ended.stdout


def test_a_reader_that_leaves_early_ends_no_command_in_a_traceback(finished: str) -> None:
    command = " ".join([*COMMAND, "why", finished, "crawl/0.jsonl#0"])
    ended = subprocess.run(
        ["bash", "-c", f"{command} | head -1"], capture_output=True, text=True, timeout=WAIT_S
    )
    assert "id" in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.cluster
def test_prepare_prints_plain_lines_to_a_log_and_the_funnel_to_stdout(
    begun: str, cluster: None, shared_ray: SharedRay
) -> None:
    ended = outside("prepare", begun, env={"RAY_ADDRESS": shared_ray.address})
    assert ended.returncode == 0, ended.stderr
    assert "\r" not in ended.stderr
    assert "\x1b" not in ended.stderr + ended.stdout
    first, *_, last = ended.stderr.splitlines()
    assert first.startswith("clean: 1 split; ")
    assert last.startswith("clean: 1/1 splits  60 documents  ")
    assert "dropped" in last
    assert "document.char_count" in ended.stdout
    assert "kept" in ended.stdout
    assert recipe.load_recipe(begun).folder("clean") in ended.stdout


@pytest.mark.slow  # tests/base/test_live_line.py and tests/corpus/test_progress.py hold the law
@pytest.mark.cluster
def test_prepare_shows_one_live_line_on_a_terminal(begun: str, cluster: None, shared_ray: SharedRay) -> None:
    main, terminal = pty.openpty()
    environment = os.environ | {"RAY_ADDRESS": shared_ray.address, "COLUMNS": "60"}
    process = subprocess.Popen(
        [*COMMAND, "prepare", begun], stdout=subprocess.DEVNULL, stderr=terminal, env=environment
    )
    os.close(terminal)
    shown = b"".join(iter(lambda: _read(main), b"")).decode()
    os.close(main)
    assert process.wait(WAIT_S) == 0
    states = shown.split("\r\x1b[K")
    assert states[1].startswith("clean: 1 split; ")
    assert all("\n" not in state and len(state) < 60 for state in states[:-1])
    assert states[-1].startswith("clean: 1/1 splits  60 documents  ")
    assert states[-1].endswith("\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # EIO: the other side of a terminal was closed
        return b""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),  # test_ray_session.py sends it in seconds
    ],
)
def test_a_stopped_run_says_so_and_the_next_one_goes_on(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    (tmp_path / "crawl").mkdir()
    for part in range(12):
        (tmp_path / "crawl" / f"{part:02d}.jsonl").write_text(
            (lines(300, part) + "\n") * 12, encoding="utf-8"
        )
    largest = max(file.stat().st_size for file in (tmp_path / "crawl").iterdir())
    inputs = [{"use": "jsonl", "path": f"{tmp_path}/crawl/*.jsonl"}]
    data = {"inputs": inputs, "max_error_share": 0.1, "split_mb": largest / 2**20}  # a split for each
    path = write_recipe(tmp_path, "", data=data)
    loaded = recipe.load_recipe(path)
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [*COMMAND, "prepare", path], env=environment, stderr=subprocess.PIPE, text=True
    )
    markers = Path(loaded.folder("clean"), "splits")
    deadline = time.monotonic() + WAIT_S
    while not list(markers.glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sent)
    error = process.communicate(timeout=WAIT_S)[1]
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert "run the same command again" in error
    assert not Path(loaded.folder("clean"), manifest.MANIFEST).exists()
    left = 12 - len(list(markers.glob("*.json")))
    assert left > 0
    worked: list[int] = []

    def counted(given: recipe.Recipe, folder: str, splits: Any) -> Any:
        worked.extend(split.index for split in splits)
        yield from run_here(given, folder, splits)

    pipeline.prepare(loaded, counted)
    assert len(worked) == left
    clean = recipe.load_recipe(path, [f"root={tmp_path}/clean"])
    pipeline.prepare(clean, run_here)
    assert digests(clean) == digests(loaded)
