"""Mean metrics, throughput and input wait."""

import time

import numpy as np
import pytest

from train.data.prefetch import Prefetcher
from train.engine.meter import Meter


def test_means_throughput_and_input_wait_of_an_interval():
    began = time.monotonic()
    meter = Meter(batch_size=8, fetch=lambda tree: tree)
    feed = Prefetcher(range(9), lambda _: time.sleep(0.05), depth=1)
    for loss in (1.0, 2.0):
        meter.next_batch(feed)
        time.sleep(0.05)
        meter.add({"loss": loss, "top1": loss / 4, "learning_rate": loss, "nonfinite": 0})
    feed.close()
    meter.collect(step=2)
    row = meter.row(step=2)
    seconds = time.monotonic() - began  # more than slept if the machine is busy
    assert row["train/loss"] == 1.5 and row["train/top1"] == 0.375 and row["learning_rate"] == 2
    assert 16 / seconds - 0.1 <= row["images_per_second"] <= 16 / 0.15
    assert 0.04 / seconds <= row["input_wait_fraction"] <= 1 - 0.1 / seconds + 0.05
    meter.add({"loss": 5.0, "top1": 1.0, "learning_rate": 3.0, "nonfinite": 0})
    meter.restart_clock()  # earlier steps are averaged, but not timed
    meter.collect(step=3)
    row = meter.row(step=3)
    assert row["train/loss"] == 5 and "images_per_second" not in row


def test_first_nonfinite_step_is_found_and_skipped_steps_are_excluded():
    def summary(skips_nonfinite, *metrics):
        meter = Meter(batch_size=8, fetch=lambda tree: tree, skips_nonfinite=skips_nonfinite)
        for steps, loss, nonfinite in metrics:
            means = {"loss": loss, "top1": 0.0, "learning_rate": 1.0, "nonfinite": nonfinite}
            meter.add(means, steps)
        last = 100 + sum(steps for steps, *_ in metrics)
        return meter.collect(last), meter.first_nonfinite

    nan = float("nan")
    row, first = summary(False, (1, 2.0, 0), (1, nan, 1), (1, nan, 1))
    assert first == 102 and row["nonfinite"] == 2 and np.isnan(row["train/loss"])
    _, first = summary(
        False, (10, 2.0, 0), (10, nan, 0.7)
    )  # the last seven steps of the second call
    assert first == 114
    row, first = summary(True, (1, 2.0, 0), (1, 0.0, 1), (1, 4.0, 0))
    assert first == 102 and row["nonfinite"] == 1 and row["train/loss"] == 3
    row, _ = summary(True, (1, 0.0, 1), (1, 0.0, 1))
    assert row["nonfinite"] == 2 and np.isnan(row["train/loss"])
    row, first = summary(True, (1, 2.0, 0))
    assert first is None and "nonfinite" not in row


class Computing:
    """A result that is ready some time after its step was dispatched."""

    free = 0.0  # time at which the device finishes all dispatched steps

    def __init__(self, seconds):
        Computing.free = max(Computing.free, time.monotonic()) + seconds
        self.ready = Computing.free

    def is_ready(self):
        return time.monotonic() >= self.ready

    def block_until_ready(self):
        time.sleep(max(0, self.ready - time.monotonic()))


@pytest.mark.parametrize(
    ("input_seconds", "step_seconds", "minimum", "maximum"),
    [(0.02, 0.04, 0.0, 0.2), (0.04, 0.02, 0.3, 0.7)],
)
def test_input_wait_counts_only_while_devices_are_idle(
    input_seconds, step_seconds, minimum, maximum
):
    """Steps are dispatched ahead: the loop waits for images while the device still computes."""
    means = {"loss": 1, "top1": 1, "learning_rate": 1, "nonfinite": 0}
    meter = Meter(batch_size=8, fetch=lambda tree: [means] * 25)
    with Prefetcher(range(99), lambda _: time.sleep(input_seconds)) as feed:
        for _ in range(25):
            meter.next_batch(feed)
            meter.add({"loss": Computing(step_seconds)})
        meter.collect(step=25)
        row = meter.row(step=25)
    assert minimum <= row["input_wait_fraction"] <= maximum
    assert meter.input_wait() == pytest.approx(row["input_wait_fraction"], abs=1e-3)
