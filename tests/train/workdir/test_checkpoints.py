"""Checkpoints: which are kept, and what is restored."""

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.weights.checkpoints import best_in, find_checkpoint
from flax_resnet.weights.run_info import BestBy
from train.engine.step import TrainState
from train.runtime import distributed
from train.runtime.errors import RunError, UsageError
from train.workdir.checkpoints import Checkpoints, restore_on_all


def state_at(step):
    rng = np.random.default_rng(step)
    return TrainState(
        step=np.int32(step),
        params={"layer": {"kernel": rng.normal(size=(3, 4)).astype(np.float32)}},
        batch_stats={"mean": rng.normal(size=4).astype(np.float32)},
        opt_state=({"count": np.int32(step)}, rng.normal(size=2).astype(jnp.bfloat16)),
        ema={},
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def saved(tmp_path):
    """Save steps 10 … 60, with the best top-1 at 20 and none at 50; keep two."""
    with Checkpoints(str(tmp_path), max_to_keep=2) as checkpoints:
        for step, top1 in (
            (10, 0.2),
            (20, 0.9),
            (30, 0.5),
            (40, 0.9 - 1e-9),
            (50, None),
            (60, 0.7),
        ):
            checkpoints.save(state_at(step), None if top1 is None else {"top1": top1})
        checkpoints.wait()
        yield checkpoints


def test_latest_and_best_are_kept(saved):
    assert saved.steps() == [20, 50, 60]
    assert saved.best() == (20, 0.9)


def test_best_is_removed_once_a_later_step_equals_it(saved):
    saved.attach_metrics(60, {"top1": 0.9})
    assert saved.steps() == [50, 60]
    assert_same(saved.restore("best", template=state_at(0)), state_at(60))


@pytest.mark.parametrize(("step", "number"), [("last", 60), ("best", 20), (50, 50)])
def test_restores_bit_exactly(saved, step, number):
    assert_same(saved.restore(step, template=state_at(0)), state_at(number))


def test_read_only_access_changes_nothing(saved, tmp_path):
    before = sorted(os.listdir(saved.folder))
    reader = Checkpoints(str(tmp_path))
    assert reader.steps() == [20, 50, 60]
    assert reader.best() == (20, 0.9)
    assert_same(reader.restore("best", template=state_at(0)), state_at(20))
    assert sorted(os.listdir(saved.folder)) == before


def test_saving_an_older_step_is_an_error(saved):
    for step in (30, 60):
        with pytest.raises(RunError, match=f"already has step 60, cannot save step {step}"):
            saved.save(state_at(step))


def test_is_best_compares_with_all_saved_steps(saved):
    assert saved.is_best({"top1": 0.91})
    assert not saved.is_best({"top1": 0.9}) and not saved.is_best(None)
    again = Checkpoints(os.path.dirname(saved.folder), max_to_keep=2)
    assert not again.is_best({"top1": 0.9}) and again.is_best({"top1": 0.91})


@pytest.mark.parametrize(("larger", "best"), [(True, 30), (False, 20)])
def test_another_metric_decides_about_the_best(tmp_path, larger, best):
    by = BestBy("own", larger)
    with Checkpoints(str(tmp_path), max_to_keep=1, best_by=by) as checkpoints:
        for step, own in ((10, None), (20, -2.0), (30, 1.0), (40, 0.0)):
            metrics = {"top1": 1 / step, **({} if own is None else {"own": own})}
            assert checkpoints.is_best(metrics) == (step == 20 or (larger and step == 30))
            checkpoints.save(state_at(step), metrics)
        checkpoints.wait()
        assert checkpoints.steps() == [best, 40]
    folder = checkpoints.folder
    with Checkpoints(str(tmp_path), max_to_keep=1, best_by=by) as checkpoints:
        assert not checkpoints.is_best({"top1": 1.0})
        assert not checkpoints.is_best({"own": -2.0 if best == 20 else 1.0})
        assert checkpoints.is_best({"own": 1.5 if larger else -2.5})
    assert best_in(folder, by)[0] == best and best_in(folder)[0] == best  # 1 / 40 is the least


def test_without_evaluations_the_last_step_is_restored_as_the_best(tmp_path):
    with Checkpoints(str(tmp_path), max_to_keep=3) as checkpoints:
        assert checkpoints.is_best({"top1": 0.0})
        for step in (1, 2, 3):
            checkpoints.save(state_at(step))
        checkpoints.wait()
        assert checkpoints.best() is None
        assert_same(checkpoints.restore("best", template=state_at(0)), state_at(3))


def test_all_processes_restore_the_step_that_process_0_selects(saved, monkeypatch):
    restored = []
    restore = saved.restore
    monkeypatch.setattr(saved, "restore", lambda *args: restored.append(args[0]) or restore(*args))
    assert_same(restore_on_all(saved, "best", state_at(0)), state_at(20))
    assert restored == ["best"]
    monkeypatch.setattr(distributed, "is_primary", lambda: False)
    monkeypatch.setattr(distributed, "raise_if_any_failed", contextlib.nullcontext)
    monkeypatch.setattr(distributed, "allgather", lambda own: [50, own])  # process 0's first
    assert_same(restore_on_all(saved, "best", state_at(0)), state_at(50))
    assert restored == ["best", 50]


def test_missing_step_is_a_usage_error(saved):
    with pytest.raises(UsageError, match="no step 30; it has 20, 50, 60"):
        saved.restore(30, template=state_at(0))


def test_empty_folder_has_nothing_to_restore(tmp_path):
    with pytest.raises(RunError, match="no checkpoints"):
        Checkpoints(str(tmp_path))
    checkpoints = Checkpoints(str(tmp_path), max_to_keep=1)
    assert checkpoints.steps() == [] and checkpoints.best() is None
    with pytest.raises(RunError, match="no finished checkpoint"):
        checkpoints.restore("last", template=state_at(0))


def test_template_of_another_shape_is_refused(saved):
    other = state_at(0).replace(params={"layer": {"kernel": np.zeros((3, 5), np.float32)}})
    with pytest.raises(
        RunError, match=r"checkpoints/60.*kernel.*shape \(3, 4\), expected \(3, 5\)"
    ):
        saved.restore("last", template=other)


def files(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("corrupt", [flip, cut, Path.unlink])
def test_corrupt_checkpoint_falls_back_to_the_previous_one(saved, tmp_path, corrupt):
    """Whichever file is corrupt: a warning is logged, and a writer moves the checkpoint away."""
    step, whole = Path(saved.folder, "60"), tmp_path / "whole"
    shutil.copytree(step, whole)
    for path in files(whole):
        name = path.relative_to(whole)
        if str(name) == "_CHECKPOINT_METADATA":
            continue  # not needed to restore
        shutil.rmtree(step)
        shutil.copytree(whole, step)
        corrupt(step / name)
        warnings = []
        with Checkpoints(str(tmp_path), warn=warnings.append) as reader:
            state = reader.restore("last", template=state_at(0))
        assert_same(state, state_at(50))
        [warning] = warnings
        assert "checkpoints/60" in warning and "Using step 50 instead" in warning
        assert saved.steps() == [20, 50, 60]  # read-only
        with pytest.raises(RunError, match=r"checkpoints/60: .*Other steps: 20, 50"):
            reader.restore(60, template=state_at(0))
    with Checkpoints(str(tmp_path), max_to_keep=2, warn=warnings.append) as writer:
        flip(next(path for path in files(step) if path.stat().st_size > 100))
        assert_same(writer.restore("last", template=state_at(0)), state_at(50))
        assert "moved to" in warnings[-1] and "damaged_checkpoints/60" in warnings[-1]
        assert files(tmp_path / "damaged_checkpoints" / "60")
        writer.save(state_at(60), {"top1": 0.7})
        writer.wait()
        assert_same(writer.restore("last", template=state_at(0)), state_at(60))


def test_checkpoints_without_manifest_are_restored(saved, tmp_path):
    for step in saved.steps():
        Path(saved.folder, str(step), "manifest.json").unlink()
    assert_same(Checkpoints(str(tmp_path)).restore("last", template=state_at(0)), state_at(60))


def test_nothing_is_moved_if_all_are_corrupt(saved, tmp_path):
    for step in saved.steps():
        flip(max(files(Path(saved.folder, str(step))), key=lambda path: path.stat().st_size))
    with Checkpoints(str(tmp_path), max_to_keep=2) as writer:
        with pytest.raises(
            RunError,
            match=r"checkpoints/60: .*checksum differs\. None of the 3 .* intact .* or start",
        ):
            writer.restore("last", template=state_at(0))
        assert writer.steps() == [20, 50, 60]


def test_corrupt_checkpoint_that_cannot_be_moved_is_an_error(saved, tmp_path):
    """It would block saving this step later."""
    flip(Path(saved.folder, "60", "manifest.json"))
    (tmp_path / "damaged_checkpoints").write_text("")
    with Checkpoints(str(tmp_path), max_to_keep=2) as writer:
        with pytest.raises(RunError, match=r"checkpoints/60 cannot be moved to .*: \w.*; move it"):
            writer.restore("last", template=state_at(0))
        assert writer.steps() == [20, 50, 60]


def test_folders_that_are_not_steps_are_ignored(saved, tmp_path):
    names = ["²", "٣", "0099", "1_0", "-5", " 3", "1.0", "1e3", "9" * 20, str(2**31), "notes"]
    for name in names:
        Path(saved.folder, name).mkdir()
    with Checkpoints(str(tmp_path), max_to_keep=2) as writer:
        assert_same(writer.restore("last", template=state_at(0)), state_at(60))
        writer.save(state_at(70))
        writer.wait()
        assert writer.steps() == [20, 60, 70]
    assert set(names) < set(os.listdir(saved.folder))


@pytest.mark.parametrize("kind", ["file", "link to another run", "dangling link"])
def test_file_or_link_with_the_name_of_a_step_is_not_read_but_moved(saved, tmp_path, kind):
    foreign, other = Path(saved.folder, "70"), tmp_path / "other"
    if kind == "file":
        foreign.write_text("notes")
    else:
        if kind == "link to another run":
            shutil.copytree(Path(saved.folder, "20"), other)
        foreign.symlink_to(other)
    with Checkpoints(str(tmp_path)) as reader:
        assert reader.steps() == [20, 50, 60]
    assert find_checkpoint(tmp_path) == Path(saved.folder, "60", "default")
    messages = []
    with Checkpoints(str(tmp_path), max_to_keep=2, warn=messages.append) as writer:
        assert_same(writer.restore("last", template=state_at(0)), state_at(60))
        writer.save(state_at(70))
        writer.wait()
        assert_same(writer.restore(70, template=state_at(0)), state_at(70))
    assert len(messages) == 1 and "is a file or link, not a checkpoint" in messages[0]
    assert os.path.lexists(tmp_path / "damaged_checkpoints" / "70")
    assert other.exists() == (kind == "link to another run")


def test_old_checkpoints_are_kept_until_the_new_one_is_verified(saved, monkeypatch):
    """If the disk returns other bytes than were written, the next call raises; nothing is lost."""
    monkeypatch.setattr(saved, "_restore", lambda step, template: state_at(0))
    saved.save(state_at(70))
    with pytest.raises(RunError, match=r"cannot save step 70 .*differ from the saved ones"):
        saved.wait()
    monkeypatch.undo()
    assert saved.steps() == [20, 50, 60]
    assert_same(saved.restore("last", template=state_at(0)), state_at(60))
    assert sorted(os.listdir(saved.folder)) == ["20", "50", "60"]


def test_full_disk_raises_at_the_next_step(saved, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved._manager, "save", full)
    saved.save(state_at(70))
    with pytest.raises(RunError, match=r"cannot save step 70 .*: no space left on the disk"):
        for _ in range(1000):
            saved.check()
            time.sleep(0.01)
    assert saved.steps() == [20, 50, 60]


def test_file_at_the_path_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(RunError, match="is not a folder"):
        Checkpoints(str(tmp_path), max_to_keep=2)


def test_partial_save_of_a_killed_process_is_removed(saved, tmp_path):
    half = os.path.join(saved.folder, "70.orbax-checkpoint-tmp")
    os.makedirs(half)
    again = Checkpoints(str(tmp_path), max_to_keep=2)
    assert again.steps() == [20, 50, 60]
    again.save(state_at(70))
    again.wait()
    assert again.steps() == [20, 60, 70]
    assert not os.path.exists(half)


def test_partial_removal_of_a_killed_process_is_completed_by_a_writer(saved, tmp_path):
    half = os.path.join(saved.folder, "removed.40")
    os.makedirs(half)
    Checkpoints(str(tmp_path))
    assert os.path.exists(half)
    Checkpoints(str(tmp_path), max_to_keep=2)
    assert not os.path.exists(half)


def test_check_does_not_wait(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path), max_to_keep=1)
    checkpoints.check()
    written = threading.Event()
    monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: written.wait(60))
    checkpoints.save(state_at(5))
    checkpoints.check()
    assert not checkpoints._saving.done()
    written.set()
    with pytest.raises(RunError, match="cannot save step 5"):  # nothing was written
        checkpoints.wait()


def test_saving_is_asynchronous_and_copies_the_state(tmp_path):
    """Changes to the state after save() must not reach the disk."""
    checkpoints = Checkpoints(str(tmp_path), max_to_keep=1)
    state = state_at(5)
    expected = jax.tree.map(np.copy, state)
    checkpoints.save(state)
    state.params["layer"]["kernel"][:] = -1
    checkpoints.wait()
    assert_same(checkpoints.restore("last", template=state), expected)
