"""The estimate of the time left, with a clock of the test."""

import pytest

from train.data.sampler import EpochSampler
from train.engine.intervals import Intervals
from train.reporting import time_estimate
from train.reporting.console import Console
from train.reporting.time_estimate import TimeEstimate
from train.runtime.formatting import format_about


def intervals(num_steps, eval_every):
    return Intervals(EpochSampler(640, 64, seed=0), num_steps, eval_every, 0, 0, 10)


@pytest.mark.parametrize("num_steps, every", [(100, 10), (105, 10), (7, 10), (50, 0), (1, 1)])
def test_evaluations_are_counted_as_they_will_be_made(num_steps, every):
    of = intervals(num_steps, every)
    for step in range(num_steps + 3):
        expected = sum(map(of.evaluates, range(step + 1, num_steps + 1)))
        assert of.evaluations_after(step) == expected


def run(capsys, monkeypatch, seconds, num_steps, per_call=1, eval_every=0, eval_seconds=0.0):
    """Dispatch steps that take some seconds each, four calls ahead; return what is printed."""
    now = [100.0]
    monkeypatch.setattr(time_estimate.time, "monotonic", lambda: now[0])
    estimate = TimeEstimate(Console(num_steps), intervals(num_steps, eval_every), 64)
    compiled = now[0]
    finished = [compiled] * 4
    for start in range(0, num_steps, per_call):
        # The step is dispatched once the fourth one before it is finished.
        now[0] = max(now[0], finished[-4])
        finished.append(max(finished[-1], now[0]) + seconds * per_call)
        if start == 0:  # the loop waits for the call that was compiled
            now[0] = finished[-1]
        estimate.after(range(start, min(start + per_call, num_steps)))
        if eval_every and (start + per_call) % eval_every == 0:
            now[0] = finished[-1] + eval_seconds
            finished.append(now[0])
    return capsys.readouterr().out


def test_time_left_is_printed_once(capsys, monkeypatch):
    out = run(capsys, monkeypatch, 0.05, 14_400)
    assert out.count("\n") == 1
    assert out.startswith("time:      about 12 min left at 1,2") and "plus 1 evaluation" in out
    rate = float(out.partition(" left at ")[2].partition(" images")[0].replace(",", ""))
    assert rate == pytest.approx(64 / 0.05, rel=0.05)


def test_slow_steps_and_calls_of_several_steps(capsys, monkeypatch):
    out = run(capsys, monkeypatch, 8.0, 1000)
    assert "about 2.2 h left at 8 images/s" in out
    out = run(capsys, monkeypatch, 0.5, 7200, per_call=8)
    assert "about 60 min left at 1" in out or "about 59 min left at 1" in out


def test_evaluations_so_far_are_part_of_the_estimate(capsys, monkeypatch):
    out = run(capsys, monkeypatch, 0.1, 1000, eval_every=20, eval_seconds=2.0)
    assert "about 3 min left" in out and ", with evaluations" in out


def test_short_runs_have_no_estimate(capsys, monkeypatch):
    assert run(capsys, monkeypatch, 0.1, 100) == ""


@pytest.mark.parametrize(
    "seconds, text",
    [
        (40, "40 s"),
        (89, "89 s"),
        (100, "2 min"),
        (700, "12 min"),
        (5400, "1.5 h"),
        (3e4, "8.3 h"),
        (1e5, "28 h"),
        (2e5, "2.3 days"),
    ],
)
def test_rough_durations(seconds, text):
    assert format_about(seconds) == text
