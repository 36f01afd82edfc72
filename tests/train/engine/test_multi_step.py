"""Several steps per dispatch, as on GPUs and TPUs."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet import create_model, load_weights
from train.data.sampler import EpochSampler, ProcessShard
from train.engine.intervals import Intervals
from train.engine.multi_step import AUTOMATIC, run_steps, stack_batches, steps_per_execution
from train.loop import train
from train.runtime.signals import StopRequest


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_steps_per_execution_does_not_change_training(digits_config, tmp_path):
    digits_config.model.update(name="resnet20", stage_sizes=(1, 1))
    model = create_model("resnet20", stage_sizes=(1, 1), num_classes=10)
    digits_config.num_steps = 7
    digits_config.log.every_steps = 3
    digits_config.schedule.learning_rate = 1e-3  # or rounding errors grow within a few steps
    learned = []
    for count in (1, 2):
        digits_config.steps_per_execution = count
        workdir = tmp_path / str(count)
        train(digits_config, str(workdir), StopRequest())
        learned.append(load_weights(model, workdir))
    one, two = (rows(tmp_path / name) for name in "12")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [3, 7]
    for a, b in zip(one, two, strict=True):
        for name in ("train/loss", "train/top1", "learning_rate"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3)
    for a, b in zip(*map(jax.tree.leaves, learned), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_calls_end_at_evaluations_checkpoints_and_log_lines():
    intervals = Intervals(
        EpochSampler(100, 10, seed=0), num_steps=23,
        eval_every=10, save_every=20, save_steps=0, log_every=6,
    )  # fmt: skip
    calls = [*intervals.calls(4, max_steps=5)]
    assert [(call.start, call.stop) for call in calls] == [
        *((4, 9), (9, 10), (10, 15), (15, 20), (20, 23)),
    ]
    assert all(len(call) == 1 for call in intervals.calls(0, max_steps=1))


def test_columns_are_the_batches_of_the_steps():
    order = EpochSampler(100, 8, seed=2)
    shard = ProcessShard(1, 2)
    calls = [range(10, 13), range(13, 14)]
    first, second = stack_batches(order, calls, shard, width=4, devices=2)
    np.testing.assert_array_equal(first["record"][:, 2], order[12][4:])
    np.testing.assert_array_equal(second["record"][:, 0], order[13][4:])
    assert first["record"].shape == (4, 4)
    assert first["steps"].tolist() == [3, 3] and second["steps"].tolist() == [1, 1]


def test_each_step_of_a_call_gets_its_batch_and_the_previous_state():
    order = EpochSampler(100, 8, seed=2)

    def step(state, data, batch):
        records = state["records"].at[state["step"]].set(batch["record"])
        metrics = {"loss": data * state["step"], "learning_rate": 10 * state["step"]}
        return {"step": state["step"] + 1, "records": records}, metrics

    call = jax.jit(run_steps(step))
    state = {"step": jnp.int32(0), "records": jnp.zeros((7, 8), jnp.int32)}
    calls = [range(0, 4), range(4, 7)]
    losses = []
    for batch in stack_batches(order, calls, ProcessShard(), width=4, devices=1):
        state, metrics = call(state, jnp.float32(2), batch)
        losses.append(float(metrics["loss"]))
    np.testing.assert_array_equal(state["records"], [order[i] for i in range(7)])
    assert state["step"] == 7
    assert losses == [2 * np.mean([0, 1, 2, 3]), 2 * np.mean([4, 5, 6])]
    assert metrics["learning_rate"] == 60  # the last step's


def test_default_is_several_steps_on_gpu_and_tpu_with_cached_data():
    assert steps_per_execution(0, "cpu", True) == 1
    assert steps_per_execution(0, "gpu", True) == steps_per_execution(0, "tpu", True) == AUTOMATIC
    assert steps_per_execution(0, "gpu", False) == steps_per_execution(8, "gpu", False) == 1
    assert steps_per_execution(8, "cpu", True) == 8
