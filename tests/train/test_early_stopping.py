"""Early ends of runs: decisions from the log, whole runs that are killed, resumed and continued."""

import json
import math

import numpy as np
import pytest

from tests.train.test_main import final_state
from tests.without_report import NoReport
from train.config.loading import default_config
from train.engine.callbacks import Callback
from train.engine.early_stopping import EarlyStopping
from train.engine.programs import SharedPrograms
from train.loop import train
from train.reporting.report.run_report import page
from train.runtime.signals import StopRequest
from train.workdir import run_files


def stopping(folder, rows, start, metric="top1", **keys):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = default_config()
    config.eval.metric = metric
    config.stop.update(keys)
    return EarlyStopping(config, str(folder), start)


def first_stop(values, patience, min_delta, sign):
    """Return the number of evaluations after which a run ends, by another formula; None: never."""
    best, at = -math.inf, -1
    for number, value in enumerate(values):
        if value is not None and sign * value - best > min_delta:
            best, at = sign * value, number
        if number - at >= patience:
            return number + 1
    return None


@pytest.mark.parametrize(("metric", "sign"), [("top1", 1), ("loss", -1)])
@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (3, 0.0), (2, 0.25)])
def test_a_resumed_run_ends_at_the_same_evaluation(tmp_path, metric, sign, patience, min_delta):
    rng = np.random.default_rng(patience)
    ended = set()
    for _ in range(20):
        # Multiples of 1/8, so that differences are exact; None stands for NaN.
        values = [int(v) / 8 if v else None for v in np.cumsum(rng.integers(-3, 4, 12))]
        rows = [{"step": 5 * i, f"eval/{metric}": v} for i, v in enumerate(values, 1)]
        expected = first_stop(values, patience, min_delta, sign)
        keys = {"metric": metric, "patience": patience, "min_delta": min_delta}
        for resumed in range(expected or 13):  # killed after any evaluation before
            early = stopping(tmp_path, rows, 5 * resumed, **keys)
            number = resumed
            while not early.reason and number < 12:
                number += 1
                early.evaluated(5 * number, {metric: values[number - 1]})
            assert (number if early.reason else None) == expected
        if expected:
            assert stopping(tmp_path, rows, 5 * expected, **keys).reason == early.reason
        ended.add(expected)
    assert len(ended) > 1


def test_minutes_count_all_sessions(tmp_path):
    rows = [{"step": 1, "minutes": 2.0}, {"step": 2, "minutes": 3.0}, {"step": 3, "minutes": 9.0}]
    assert not stopping(tmp_path, rows, 2, minutes=4.0).reason  # the last row was not saved
    assert "took 3 min, with stop.minutes=2.5" in stopping(tmp_path, rows, 2, minutes=2.5).reason
    early = stopping(tmp_path, rows, 2, minutes=3.0001)
    row = {"step": 3}
    early.logging(row)
    assert 3 <= row["minutes"] < 3.1
    without = {"step": 3}
    stopping(tmp_path, rows, 2).logging(without)
    assert without == {"step": 3}


class Kill(Callback):
    def on_step(self, step):
        if step == 5:
            raise KeyError("killed")


def test_a_killed_run_with_balanced_sampling_ends_early_at_the_same_step(
    digits_config, tmp_path, capsys, monkeypatch
):
    """And continues if early stopping allows more, as if it had from the start."""
    monkeypatch.setattr("train.reporting.observers.LiveReport", NoReport)
    config, programs = digits_config, SharedPrograms()
    config.model.update(name="resnet20", stage_sizes=(1,))
    config.loader.sampling, config.dataset.train_split = "balanced", "train[:300]"
    config.num_steps, config.eval.metric = 14, "loss"
    config.eval.every_epochs = config.checkpoint.every_epochs = 2 / 4  # every second step
    config.stop.update(patience=2, min_delta=1000.0)

    def run(name, *callbacks):
        return train(config, str(tmp_path / name), StopRequest(), None, callbacks, programs)

    result = run("whole")
    assert result["step"] == 6  # the second evaluation after the first
    with pytest.raises(KeyError, match="killed"):
        run("killed", Kill())
    assert run_files.saved_steps(str(tmp_path / "killed"))[-1] == 4
    assert run("killed") == result
    states = [final_state(tmp_path / name) for name in ("whole", "killed")]
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])

    capsys.readouterr()
    assert run("killed") == result
    reason = "2 evaluations did not improve eval/loss by more than 1000 (best "
    text = capsys.readouterr().out
    assert f"finished early after step 6: {reason}" in text
    assert "to continue, run the same command with a larger config.stop.patience, or 0" in text
    assert reason in run_files.read_description(str(tmp_path / "killed")).early_end
    assert reason in page(str(tmp_path / "killed"), {})

    config.stop.patience = 3
    assert run("killed")["step"] == 8
    config.stop.update(patience=0, minutes=1e-6)  # ends at the first step that is logged
    result = run("whole")
    assert result["step"] == 8
    states = [final_state(tmp_path / name) for name in ("whole", "killed")]
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])
    assert "stop.minutes" in run_files.read_description(str(tmp_path / "whole")).early_end
    config.stop.minutes = 0.0
    assert run("whole")["step"] == 14
    assert run_files.read_description(str(tmp_path / "whole")).early_end is None
