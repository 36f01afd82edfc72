"""When a run ends because its loss or gradients are not finite, and what it leaves."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from train.engine.nonfinite import NonFiniteGuard, check_evaluation
from train.runtime import distributed
from train.runtime.errors import RunError

NAN = float("nan")


@pytest.fixture
def make_guard(tmp_path):
    """Return a guard of a run with batches of two images; it has saved steps 3 and 5."""
    for step in ("3", "5"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)

    def make(skip):
        experiment = SimpleNamespace(
            workdir=str(tmp_path),
            step_config=SimpleNamespace(skip_nonfinite=skip),
            sampler=[np.array([2 * step, 2 * step + 1]) for step in range(100)],
            train_loader=SimpleNamespace(
                source=SimpleNamespace(record_name=lambda record: f"{record}.png")
            ),
        )
        waits = []
        return NonFiniteGuard(experiment, lambda: waits.append(1)), waits

    return make


def row(step, loss=NAN, nonfinite=1):
    return {"step": step, "train/loss": loss, "nonfinite": nonfinite}


def test_first_nonfinite_step_ends_the_run_with_a_report(make_guard, tmp_path):
    guard, waits = make_guard(skip=False)
    guard.check({"step": 9, "train/loss": 1.0}, None)
    assert waits == [] and not (tmp_path / "nonfinite.json").exists()
    with pytest.raises(RunError, match=r"not finite in step 8; step 5 is saved.*of step 8$"):
        guard.check(row(10, loss=2.0, nonfinite=3), 8)
    assert waits == [1]
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["step"] == 8 and report["saved_steps"] == [3, 5]
    assert report["metrics"]["step"] == 10
    assert report["images"] == [
        {"record": record, "name": f"{record}.png"} for record in (14, 15)  # the eighth batch
    ]  # fmt: skip


def test_only_consecutive_skipped_steps_end_the_run(make_guard, tmp_path):
    guard, waits = make_guard(skip=True)
    for step in (1, 2):
        guard.check(row(step * 10, nonfinite=9), step)
    guard.check(row(30, loss=1.0, nonfinite=9), 25)  # one of these steps was finite
    guard.check(row(49, nonfinite=19), 31)
    guard.check({"step": 50, "train/loss": 1.0}, None)
    guard.check(row(60, nonfinite=10), 51)
    guard.check(row(69, nonfinite=9), 61)
    assert waits == [] and not (tmp_path / "nonfinite.json").exists()
    with pytest.raises(RunError, match=r"the last 20 steps up to 70 were skipped.*of step 70$"):
        guard.check(row(70), 70)
    assert waits == [1] and (tmp_path / "nonfinite.json").exists()
    with pytest.raises(RunError, match="the last 20 steps up to 20"):
        make_guard(skip=True)[0].check(row(20, nonfinite=20), 1)


def test_only_process_0_writes_the_report(make_guard, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "is_primary", lambda: False)
    guard, _ = make_guard(skip=False)
    with pytest.raises(RunError, match="not finite in step 1"):
        guard.check(row(1), 1)
    assert not (tmp_path / "nonfinite.json").exists()


@pytest.mark.parametrize("loss", [NAN, float("inf"), -float("inf")])
def test_evaluation_with_a_nonfinite_loss_ends_the_run(loss, tmp_path):
    experiment = SimpleNamespace(workdir=str(tmp_path))
    check_evaluation(experiment, 3e38, 7)
    with pytest.raises(RunError, match=rf"became {loss} by step 7; nothing was saved yet"):
        check_evaluation(experiment, loss, 7)
