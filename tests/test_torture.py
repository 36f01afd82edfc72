"""A short form of benchmarks/torture.py: a run in every kind of trouble loses nothing."""

import json
import signal
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import torture
from flax_resnet import ResNet
from tests.train.test_main import SHORT, one_line, wait_until
from train.data.sampler import EpochSampler
from train.engine import nonfinite
from train.engine.devices import Pmap
from train.engine.experiment import make_step_config
from train.engine.step import create_state, train_step
from train.runtime.errors import RunError


def test_an_interrupted_run_ends_with_the_undisturbed_ones_bits(tmp_path):
    said = []
    endings = ("SIGINT", "killed in a save", "disk full")
    counts, again, lost = torture.torture(
        tmp_path,
        endings,
        seed=2,
        steps=66,
        damages=1.0,
        tell=lambda *text, **_: said.append(text),
        keys=("--config.model.stage_sizes=1,1",),
    )
    assert lost == [], said
    assert set(endings) < set(counts) and again > 0, counts


def test_a_second_trainer_in_a_workdir_is_refused(commands, tmp_path):
    arguments = commands.digits(tmp_path, *SHORT, "--config.num_steps=100000")
    first = commands.start("train.main", *arguments)
    try:
        wait_until(first, lambda: (tmp_path / "sessions.jsonl").exists())
        first.send_signal(signal.SIGSTOP)  # alive, and holds the folder, but takes no time
        second = commands.run("train.main", *arguments)
        one_line(second, 1, f"process {first.pid} on", "trains in", "another --workdir")
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert not (tmp_path / "sessions.jsonl").read_text().count("\n") > 1


def test_what_is_not_finite_ends_the_run_with_a_report(commands, tmp_path):
    """At a rate that makes the weights after the first step too large for float32."""
    keys = ("--config.log.every_steps=3", "--config.checkpoint.every_steps=1")
    keys += ("--config.schedule.learning_rate=1e18", "--config.schedule.warmup_epochs=0")
    process = commands.run("train.main", *commands.digits(tmp_path, *SHORT, *keys))
    one_line(process, 1, "not finite in step 2; step 1 is saved", "images of step 2")
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    order = EpochSampler(1437, 64, seed=0)
    assert report["step"] == 2
    assert [image["record"] for image in report["images"]] == order[1].tolist()


def test_where_steps_are_skipped_only_a_long_row_of_them_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "report", lambda run, step, row: reported.append(step))
    run = SimpleNamespace(path=str(tmp_path), step_config=SimpleNamespace(skip_nonfinite=True))
    reported, watch = [], nonfinite.NonFiniteGuard(run, wait=lambda: None)
    alone = {"train/loss": float("nan"), "nonfinite": 19}
    watch.check(alone, 1, 19)
    watch.check({"train/loss": 2.0, "nonfinite": 9}, 20, 29)  # others of the row were finite
    watch.check(alone, 30, 48)
    with pytest.raises(RunError, match="the last 20 steps up to 49 were skipped"):
        watch.check(alone | {"nonfinite": 1}, 49, 49)
    assert reported == [49]


def test_steps_that_are_skipped_change_nothing_but_the_step(digits_config):
    """A single image's labels make one step's loss infinite; the next one goes on as if not."""
    model = ResNet((1, 1), block="residual", width=8, stem="cifar", num_classes=10)
    digits_config.on_nonfinite = "skip"
    step_config = make_step_config(digits_config, model, 10, 10)
    step_config = replace(
        step_config,
        loss=lambda logits, targets: jnp.where(targets.label < 5, logits[:, 0], jnp.inf),
    )
    devices = Pmap(jax.local_devices()[:2])
    step = devices.train(lambda state, _, batch: train_step(step_config, state, batch))
    before = create_state(step_config, (8, 8, 3))
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    label = np.array([0, 1, 2, 3, 4, 0, 1, 9], np.int32)
    after, metrics = step(
        devices.replicate(before), {}, devices.split({"image": images, "label": label})
    )
    assert devices.fetch(metrics)["nonfinite"] == 1 and devices.fetch(metrics)["loss"] == 0
    after = devices.fetch(after)
    assert after.step == 1
    same = after.replace(step=before.step, opt_state=before.opt_state)  # see test_steps.py
    jax.tree.map(np.testing.assert_array_equal, same, before)
    batch = devices.split({"image": images, "label": label % 5})
    later, metrics = step(devices.replicate(after), {}, batch)
    assert devices.fetch(metrics)["nonfinite"] == 0
    changed = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), devices.fetch(later).params, before.params
    )
    assert any(jax.tree.leaves(changed))
