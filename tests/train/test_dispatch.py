"""Several steps in one dispatch, as on GPUs and TPUs."""

import json

import jax
import numpy as np

from flax_resnet import load_weights
from train.data.order import Share, TrainOrder
from train.dispatch import MOST, stacked, steps_per_call
from train.loop import train
from train.signals import StopRequest
from train.timetable import Timetable


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_the_same_however_many_steps_a_call_has(digits_config, tmp_path):
    digits_config.model.name = "resnet20"
    digits_config.num_steps = 7
    digits_config.log.every_steps = 3
    learned = []
    for together in (1, 2):
        digits_config.data.steps_per_call = together
        workdir = tmp_path / str(together)
        train(digits_config, str(workdir), StopRequest())
        learned.append(load_weights("resnet20", workdir))
    one, two = (rows(tmp_path / name) for name in "12")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [3, 6, 7]
    for a, b in zip(one, two, strict=True):
        for name in ("train/loss", "train/top1", "learning_rate"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3)
    for a, b in zip(*map(jax.tree.leaves, learned), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_calls_stop_where_something_is_due():
    timetable = Timetable(
        num_images=100, batch_size=10, steps_per_epoch=10, num_steps=23,
        eval_every=10, save_every=20, log_every=6,
    )  # fmt: skip
    calls = [*timetable.calls(4, most=5)]
    assert [(call.start, call.stop) for call in calls] == [
        *((4, 6), (6, 10), (10, 12), (12, 17), (17, 18), (18, 20), (20, 23)),
    ]
    assert all(len(call) == 1 for call in timetable.calls(0, most=1))


def test_stacked_records_are_the_batches():
    order = TrainOrder(100, 8, seed=2)
    share = Share(1, 2)
    calls = [range(10, 13), range(13, 14)]
    first, second = stacked(order, calls, share, most=4, devices=2)
    np.testing.assert_array_equal(first["record"][:, 2], order[12][4:])
    np.testing.assert_array_equal(second["record"][:, 0], order[13][4:])
    assert first["record"].shape == (4, 4)
    assert first["steps"].tolist() == [3, 3] and second["steps"].tolist() == [1, 1]


def test_only_data_on_a_gpu_or_tpu_takes_several_steps_a_call():
    assert steps_per_call(0, "cpu", True) == 1
    assert steps_per_call(0, "gpu", True) == steps_per_call(0, "tpu", True) == MOST
    assert steps_per_call(0, "gpu", False) == steps_per_call(8, "gpu", False) == 1
    assert steps_per_call(8, "cpu", True) == 8
