"""Training metrics are averaged over whole windows of steps, wherever a run is interrupted."""

import signal

import numpy as np
import pytest

from tests.without_report import NoReport
from train.engine.callbacks import Callback
from train.engine.programs import SharedPrograms
from train.loop import Interrupted, train
from train.runtime.signals import StopRequest
from train.workdir.metrics_log import read_rows

TIMES = ("time", "images_per_second", "input_wait_fraction", "mfu")


class At(Callback):
    """Do something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, step):
        if step == self.step:
            self.action()


def kill():
    raise KeyError("killed")


def test_rows_are_means_over_whole_windows_also_of_interrupted_runs(
    digits_config, tmp_path, monkeypatch
):
    monkeypatch.setattr("train.reporting.observers.LiveReport", NoReport)
    config, programs = digits_config, SharedPrograms()
    config.model.update(name="resnet20", stage_sizes=(1,))
    config.num_steps, config.log.every_steps, config.checkpoint.every_steps = 33, 6, 7
    config.checkpoint.every_epochs, config.eval.every_epochs = 0.0, 14 / 22

    def run(name, *callbacks, stop=None):
        stop = StopRequest() if stop is None else stop
        train(config, str(tmp_path / name), stop, None, callbacks, programs)
        return read_rows(str(tmp_path / name))

    whole = run("whole")
    # The 5 steps after the evaluation at 28 are less than a window: both are merged.
    assert [row["step"] for row in whole if "train/loss" in row] == [6, 14, 20, 33]
    assert [row["step"] for row in whole if "eval/top1" in row] == [14, 28, 33]

    # Killed after step 9 and the checkpoint of step 7, between two rows; then stopped at 17.
    with pytest.raises(KeyError):
        run("interrupted", At(9, kill))
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run("interrupted", At(17, lambda: setattr(stop, "signal", signal.SIGTERM)), stop=stop)
    resumed = run("interrupted")

    def without_times(rows):
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]

    assert without_times(resumed) == without_times(whole)

    config.log.every_steps = 1
    losses = {row["step"]: row["train/loss"] for row in run("steps")}
    start = 0
    for row in whole:
        if "train/loss" in row:
            window = range(start + 1, row["step"] + 1)
            assert len(window) >= 6
            mean = np.mean([losses[step] for step in window])
            assert row["train/loss"] == pytest.approx(mean, rel=1e-6)
            assert row["images_per_second"] > 0
            start = row["step"]
    assert start == 33
