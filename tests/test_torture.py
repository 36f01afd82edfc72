"""Interrupted and failing runs lose nothing: a short form of benchmarks/torture.py."""

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


def test_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path):
    output = []
    endings = ("SIGINT", "killed in a save", "disk full")
    counts, repeated, lost = torture.torture(
        tmp_path,
        endings,
        seed=2,
        steps=66,
        corruption_probability=1.0,
        report=lambda *text, **_: output.append(text),
        keys=("--config.model.stage_sizes=1,1",),
    )
    assert lost == [], output
    assert set(endings) < set(counts) and repeated > 0, counts


def test_second_trainer_in_a_workdir_is_refused(commands, tmp_path):
    arguments = commands.digits(tmp_path, *SHORT, "--config.num_steps=100000")
    first = commands.start("train.main", *arguments)
    try:
        wait_until(first, lambda: (tmp_path / "sessions.jsonl").exists())
        first.send_signal(signal.SIGSTOP)  # alive and holding the lock, but idle
        second = commands.run("train.main", *arguments)
        one_line(second, 1, f"process {first.pid} on", "trains in", "another --workdir")
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert not (tmp_path / "sessions.jsonl").read_text().count("\n") > 1


def test_nonfinite_loss_ends_the_run_with_a_report(commands, tmp_path):
    """The learning rate makes the weights overflow float32 in the first step."""
    keys = ("--config.log.every_steps=3", "--config.checkpoint.every_steps=1")
    keys += ("--config.schedule.learning_rate=1e18", "--config.schedule.warmup_epochs=0")
    process = commands.run("train.main", *commands.digits(tmp_path, *SHORT, *keys))
    one_line(process, 1, "not finite in step 2; step 1 is saved", "images of step 2")
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    order = EpochSampler(1437, 64, seed=0)
    assert report["step"] == 2
    assert [image["record"] for image in report["images"]] == order[1].tolist()


def test_only_many_consecutive_skipped_steps_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "write_report", lambda run, step, row: reported.append(step))
    step_config = SimpleNamespace(skip_nonfinite=True)
    experiment = SimpleNamespace(workdir=str(tmp_path), step_config=step_config)
    reported, guard = [], nonfinite.NonFiniteGuard(experiment, wait_saved=lambda: None)
    all_skipped = {"train/loss": float("nan"), "nonfinite": 19}
    guard.check(all_skipped | {"step": 19}, 1)
    guard.check({"step": 29, "train/loss": 2.0, "nonfinite": 9}, 20)  # other steps were finite
    guard.check(all_skipped | {"step": 48}, 30)
    with pytest.raises(RunError, match="the last 20 steps up to 49 were skipped"):
        guard.check(all_skipped | {"step": 49, "nonfinite": 1}, 49)
    assert reported == [49]


def test_skipped_step_changes_nothing_but_the_step(digits_config):
    """One label makes the loss of a step infinite; the next step continues normally."""
    model = ResNet((1, 1), block="residual", width=8, stem="cifar", num_classes=10)
    digits_config.on_nonfinite = "skip"
    step_config = make_step_config(digits_config, model, 10, 10)
    task = replace(
        step_config.task,
        loss=lambda logits, targets: jnp.where(targets.label < 5, logits[:, 0], jnp.inf),
    )
    step_config = replace(step_config, task=task)
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
    same = after.replace(step=before.step, opt_state=before.opt_state)  # see test_step_options.py
    jax.tree.map(np.testing.assert_array_equal, same, before)
    batch = devices.split({"image": images, "label": label % 5})
    later, metrics = step(devices.replicate(after), {}, batch)
    assert devices.fetch(metrics)["nonfinite"] == 0
    changed = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), devices.fetch(later).params, before.params
    )
    assert any(jax.tree.leaves(changed))
