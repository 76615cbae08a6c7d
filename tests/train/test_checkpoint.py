"""A checkpoint is complete or it is none; a damaged one is passed over by name; saving never touches a whole
one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_safetensors

from ctllm_ray.base import storage
from ctllm_ray.base.errors import NotFound, StorageError, VersionConflict
from ctllm_ray.train.checkpoint import checkpoint, run_lock, saver
from ctllm_ray.train.checkpoint.checkpoint import CHECKPOINT, PassedOver, newest, open_at
from ctllm_ray.train.checkpoint.run_lock import RUNNING, RunLock
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.checkpoint.saver import Saver, to_drop
from tests.base.test_storage_s3 import endpoint  # noqa: F401


def some(seed: int, *names: str) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 5, generator=draw) for name in names or ("model.a", "exp_avg.a", "model.b")}


def save(
    folder: str, step: int, tensors: dict[str, torch.Tensor] | None = None, token: str = "t", **state: object
) -> str:
    """A checkpoint of one worker, complete; its folder."""
    one = Saver(folder, 0, 1, token, 100, 0)
    one.save(
        RunState(step=step, batch=step, tokens=step * 10, **state), iter((tensors or some(step)).items())
    )  # type: ignore[arg-type]
    one.wait()
    one.close()
    return checkpoint.folder_of(folder, step)


def state_file(folder: str) -> Path:
    return next(Path(folder).glob("state-*.safetensors"))


@pytest.fixture
def run_folder(tmp_path: Path) -> str:
    return str(tmp_path / "train")


def test_what_was_saved_comes_back_to_the_bit_with_its_state(run_folder: str) -> None:
    tensors = some(1) | {"model.empty": torch.empty(0, 4), "model.scalar": torch.tensor(2.5)}
    state = {
        "passed_over": (3, 8),
        "recent_losses": (2.5, 2.25),
        "data": "f",
        "recipe": {"a": [1, {"b": None}]},
    }
    save(run_folder, 7, tensors, **state)
    found = newest(run_folder)
    assert found.state == RunState(step=7, batch=7, tokens=70, **state)  # type: ignore[arg-type]
    assert found.names == sorted(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found.tensor(name), tensor)
        assert found.shape(name) == tuple(tensor.shape)
    assert not found.verify(found.files)


def test_the_files_are_plain_safetensors(run_folder: str) -> None:
    tensors = some(2)
    folder = save(run_folder, 1, tensors)
    with safe_open(state_file(folder), framework="pt") as opened:
        assert set(opened.keys()) == set(tensors)
        assert all(torch.equal(opened.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_a_name_that_is_not_there_is_told(run_folder: str) -> None:
    save(run_folder, 1)
    with pytest.raises(StorageError, match=r"no tensor 'model\.c'"):
        newest(run_folder).tensor("model.c")


def test_a_run_without_checkpoints_says_so(run_folder: str) -> None:
    with pytest.raises(NotFound, match="no checkpoint yet"):
        newest(run_folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncated", "bytes, not"),
        ("missing rank", "is missing"),
        ("not JSON", "not valid JSON"),
        ("not ours", "not written by ctllm"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it_and_named(
    run_folder: str, damage: str, reason: str
) -> None:
    save(run_folder, 1)
    broken = save(run_folder, 2)
    if damage == "truncated":
        os.truncate(state_file(broken), 100)
    elif damage == "missing rank":
        state_file(broken).unlink()
    else:
        (Path(broken) / CHECKPOINT).write_text("{" if damage == "not JSON" else '{"state": {}}')
    found = newest(run_folder)
    assert found.step == 1
    assert [known.folder for known in found.passed_over] == [broken]
    assert reason in found.passed_over[0].reason
    with pytest.raises(StorageError):
        open_at(broken)


def test_one_flipped_bit_is_found_by_its_hash(run_folder: str) -> None:
    save(run_folder, 1)
    broken = save(run_folder, 2)
    content = bytearray(state_file(broken).read_bytes())
    content[-3] ^= 16
    state_file(broken).write_bytes(content)
    found = newest(run_folder)
    assert found.step == 2  # sizes are right
    reason = found.verify(found.files)
    assert "SHA-256" in reason
    assert newest(run_folder, unfit=[PassedOver(found.folder, reason)]).step == 1


def test_where_none_is_whole_all_reasons_are_told(run_folder: str) -> None:
    for step in (1, 2):
        os.truncate(state_file(save(run_folder, step)), 8)
    with pytest.raises(StorageError, match=r"all checkpoints are damaged \(00000002: .*; 00000001: .*\)"):
        newest(run_folder)


def test_files_of_several_workers_make_one_checkpoint_whoever_is_first(run_folder: str) -> None:
    workers = [Saver(run_folder, rank, 3, "t", 2, 0) for rank in range(3)]
    parts = [some(rank, f"model.{rank}") for rank in range(3)]
    for rank in (0, 2, 1):
        assert checkpoint.steps(run_folder) == []  # not before the last
        workers[rank].save(RunState(step=4, world=3), iter(parts[rank].items()))
        time.sleep(0.05)
    for worker in workers:
        worker.wait()
        worker.close()
    found = newest(run_folder)
    assert found.names == ["model.0", "model.1", "model.2"]
    assert torch.equal(found.tensor("model.2"), parts[2]["model.2"])
    names = {path.name for path in Path(found.folder).iterdir()}
    assert names == {CHECKPOINT, *found.files}  # announcements are gone


def test_a_worker_that_died_before_it_wrote_leaves_no_checkpoint_and_close_does_not_hang(
    run_folder: str,
) -> None:
    one = Saver(run_folder, 0, 2, "t", 2, 0)
    one.save(RunState(step=4, world=2), iter(some(0).items()))
    one.close()
    with pytest.raises(StorageError, match="1 workers did not write"):
        one.wait()
    assert checkpoint.steps(run_folder) == []


def test_announcements_of_an_earlier_start_are_not_taken_for_new_ones(run_folder: str) -> None:
    before = Saver(run_folder, 1, 2, "before", 2, 0)
    before.save(RunState(step=4, world=2), iter(some(1, "model.b").items()))
    before.wait()
    one = Saver(run_folder, 0, 2, "now", 2, 0)
    one.save(RunState(step=4, world=2), iter(some(0, "model.a").items()))
    one.close()
    with pytest.raises(StorageError):
        one.wait()


def test_saving_a_step_again_replaces_it_in_one_step(run_folder: str) -> None:
    save(run_folder, 3, some(1), token="a")
    save(run_folder, 3, some(2), token="b", passed_over=(1,))
    found = newest(run_folder)
    assert torch.equal(found.tensor("model.a"), some(2)["model.a"])
    assert found.state.passed_over == (1,)
    assert len(list(Path(found.folder).iterdir())) == 2


def test_one_save_is_in_flight_and_the_next_one_waits_for_it(
    run_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = checkpoint.write_state_file

    def slow(*given: object) -> object:
        go.wait()
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write_state_file", slow)
    one = Saver(run_folder, 0, 1, "t", 5, 0)
    one.save(RunState(step=1), iter(some(1).items()))
    assert one.take_finished() == []
    second = threading.Thread(target=one.save, args=(RunState(step=2), iter(some(2).items())))
    second.start()
    second.join(0.1)
    assert second.is_alive()  # waits
    go.set()
    second.join()
    one.wait()
    assert [saved.state.step for saved in one.take_finished()] == [1, 2]  # both are told of
    assert one.take_finished() == []
    one.close()


def test_what_changes_after_the_snapshot_is_not_saved(run_folder: str) -> None:
    live = some(1)
    one = Saver(run_folder, 0, 1, "t", 5, 0)
    one.save(RunState(step=1), ((name, tensor.clone()) for name, tensor in live.items()))
    for tensor in live.values():
        tensor.zero_()
    one.wait()
    assert torch.equal(newest(run_folder).tensor("model.a"), some(1)["model.a"])
    one.close()


@pytest.mark.parametrize(
    ("keep", "every", "gone"),
    [(2, 0, [1, 2, 3]), (1, 0, [1, 2, 3, 4]), (2, 20, [1, 3]), (1, 25, [1, 2, 4]), (9, 0, [])],
)
def test_the_newest_and_the_first_after_each_multiple_stay(keep: int, every: int, gone: list[int]) -> None:
    assert to_drop({step: step * 10 for step in range(1, 6)}, keep, every) == gone


def test_retention_deletes_what_need_not_stay_also_of_earlier_starts(run_folder: str) -> None:
    for step in (1, 2, 3, 4, 5):
        one = Saver(run_folder, 0, 1, str(step), 1, 20)
        one.save(RunState(step=step, tokens=step * 10), iter(some(step).items()))
        one.wait()
        one.close()
    assert checkpoint.steps(run_folder) == [2, 4, 5]
    assert sorted(path.name for path in (Path(run_folder) / "checkpoints").iterdir()) == [
        "00000002", "00000004", "00000005",
    ]  # fmt: skip


def test_damaged_checkpoints_do_not_push_whole_ones_out(run_folder: str) -> None:
    for step in (1, 2, 9):
        os.truncate(state_file(save(run_folder, step)), 100) if step == 9 else save(run_folder, step)
    one = Saver(run_folder, 0, 1, "x", 2, 0)
    one.save(RunState(step=3), iter(some(3).items()))
    one.wait()
    one.close()
    assert checkpoint.steps(run_folder) == [2, 3, 9]
    assert newest(run_folder).step == 3


def test_a_start_sweeps_what_a_killed_save_left(run_folder: str) -> None:
    save(run_folder, 1)
    left = Path(checkpoint.folder_of(run_folder, 2))
    left.mkdir()
    (left / "state-00000-of-00001-x1.safetensors").write_bytes(b"half")
    (left / f"{storage.TEMPORARY}abc").write_bytes(b"half")
    assert newest(run_folder).step == 1
    Saver(run_folder, 0, 1, "y", 2, 0).close()
    assert not left.exists()
    assert checkpoint.steps(run_folder) == [1]


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"])
def test_tensors_begin_at_a_multiple_of_eight_however_long_their_names_are(name: str) -> None:
    blocks = list(checkpoint.safetensors_blocks([(name, torch.arange(3.0))]))
    header = int.from_bytes(bytes(blocks[0][:8]), "little")
    assert header % 8 == 0
    assert len(blocks[0]) == 8 + header
    loaded = load_safetensors(b"".join(map(bytes, blocks)))
    assert torch.equal(loaded[name], torch.arange(3.0))


def test_kill_minus_9_in_the_middle_of_a_save_leaves_the_one_before(run_folder: str) -> None:
    save(run_folder, 1)
    code = f"""
import torch
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.checkpoint.saver import Saver
from ctllm_ray.train.checkpoint.run_state import RunState
real = checkpoint.safetensors_blocks
def slow(tensors):
    import time
    for number, block in enumerate(real(tensors)):
        yield block
        if number == 2:
            print("half", flush=True)
            time.sleep(600)
checkpoint.safetensors_blocks = slow
one = Saver({run_folder!r}, 0, 1, "k", 2, 0)
one.save(RunState(step=2), iter([(f"model.{{n}}", torch.ones(1000)) for n in range(9)]))
one.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(Path(checkpoint.folder_of(run_folder, 2)).iterdir())  # it had begun
    found = newest(run_folder)
    assert (found.step, found.verify(found.files)) == (1, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_plainly_and_leaves_the_checkpoint_before_it(small_disk: Path) -> None:
    folder = str(small_disk / "train")
    save(folder, 1)
    one = Saver(folder, 0, 1, "t", 2, 0)
    one.save(RunState(step=2), iter({"model.large": torch.zeros(100_000)}.items()))
    with pytest.raises(
        StorageError, match=r"checkpoint of step 2 could not be written: .*No space left"
    ) as caught:
        one.wait()
    one.close()
    assert "the checkpoint before this one" in caught.value.remedy
    assert newest(folder).step == 1
    assert not list(Path(checkpoint.folder_of(folder, 2)).glob("*"))  # its space is given back


@pytest.mark.parametrize("root", ["memory://runs/train", "s3://bucket/train"])
def test_an_object_store_does_as_well(root: str, endpoint: str) -> None:  # noqa: F811
    for step in (1, 2, 3):
        one = Saver(root, 0, 1, f"t{step}", 2, 0)
        one.save(RunState(step=step), iter(some(step).items()))
        one.wait()
        one.close()
    found = newest(root)
    assert checkpoint.steps(root) == [2, 3]
    assert not found.verify(found.files)
    assert torch.equal(found.tensor("exp_avg.a"), some(3)["exp_avg.a"])
    copies = [checkpoint._copy_of(file) for file in found.files.values()]
    assert all(copy.exists() for copy in copies)
    found.forget_copies()
    assert not any(copy.exists() for copy in copies)
    fs, path = storage.filesystem(found.folder)
    fs.pipe_file(f"{path}/{next(iter(found.files))}", b"short")
    assert newest(root).step == 2


# --- the lease
# -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.05)
    monkeypatch.setattr(run_lock, "STALE_S", 0.5)
    monkeypatch.setattr(run_lock, "LOOK_S", 0.05)


def note(run_folder: str) -> dict:
    return json.loads((Path(run_folder) / RUNNING).read_text())


def test_a_second_run_under_a_name_is_refused_while_the_first_is_alive(run_folder: str, quick: None) -> None:
    first = RunLock(run_folder, "a")
    with pytest.raises(VersionConflict, match=f"another process is training this run: process {os.getpid()}"):
        RunLock(run_folder, "b")
    first.check()
    first.release()
    assert not (Path(run_folder) / RUNNING).exists()
    RunLock(run_folder, "b").release()


def test_the_same_owner_takes_over_at_once_and_the_one_before_notices(run_folder: str, quick: None) -> None:
    first = RunLock(run_folder, "a")
    second = RunLock(run_folder, "a")
    first._thread.join()  # its next beat finds the other's token
    with pytest.raises(VersionConflict):
        first.check()
    first.release()
    assert note(run_folder)["token"] == second._note.token  # not freed by the one that lost it
    second.release()


def test_a_process_that_is_gone_holds_nothing(run_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "STALE_S", 1e9)  # it would wait for ever for the other to go stale
    code = "import os; from ctllm_ray.train.checkpoint.run_lock import RunLock\n"
    code += f"RunLock({run_folder!r}, 'a'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert note(run_folder)["owner"] == "a"
    RunLock(run_folder, "b").release()


def test_a_machine_that_is_gone_frees_the_name_after_a_while(run_folder: str, quick: None) -> None:
    old = {"owner": "a", "token": "x", "host": "elsewhere", "pid": 1, "started": 0.0, "beat": 7}
    storage.write_json(storage.join(run_folder, RUNNING), old)
    RunLock(run_folder, "b").release()


def test_a_pid_that_is_used_again_is_another_process(run_folder: str) -> None:
    process = psutil.Process(os.getppid())
    held = {"owner": "a", "token": "x", "host": run_lock.socket.gethostname(), "pid": process.pid, "beat": 7}
    storage.write_json(storage.join(run_folder, RUNNING), held | {"started": process.create_time() - 100})
    RunLock(run_folder, "b").release()


def test_looking_for_files_of_other_workers_ends(run_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "ALL_WORKERS_S", 0.1)
    one = Saver(run_folder, 0, 2, "t", 2, 0)
    one.save(RunState(step=4, world=2), iter(some(0).items()))
    with pytest.raises(StorageError, match="did not write"):
        one.wait()
    one.close()
