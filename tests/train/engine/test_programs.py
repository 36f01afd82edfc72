"""Compiled steps that runs share compute the bits of steps that each run compiles."""

import jax
import numpy as np
import pytest

from train import arrays_source
from train.config.access import set_key
from train.engine import programs
from train.engine.experiment import build_experiment
from train.engine.programs import SHARING_JAX, UNSHARED, SharedPrograms
from train.engine.step import create_state

STEPS = 8
KEYS = {  # test_sweep.py has SGD with a cosine
    "schedule.name": "one_cycle",
    "schedule.warmup_epochs": 0,
    "optimizer.name": "adamw",
    "optimizer.nesterov": False,
    "augment.mixup": 0.2,
    "model.dropout": 0.2,
    "ema.decay": 0.9,
}


@pytest.fixture
def make(digits_config, tmp_path):
    """Return a function from keys to the experiment of a tiny network."""

    def make(keys, sources=None):
        for name, value in keys.items():
            set_key(digits_config, name, value)
        small = {"num_steps": STEPS, "model.stage_sizes": (1,), "model.width": 8}
        for name, value in small.items():
            set_key(digits_config, name, value)
        return build_experiment(digits_config.copy_and_resolve_references(), str(tmp_path), sources)

    return make


def train(experiment, source):
    """Return the state after all steps, and the learning rates of the metrics."""
    devices, rates = experiment.devices, []
    data = devices.replicate(experiment.train_loader.load().cached)
    state = devices.replicate(create_state(experiment.step_config, experiment.image_shape))
    step = source.train_step(experiment, 1)
    for batch in experiment.train_loader.train_batches(experiment.sampler, range(STEPS)):
        state, metrics = step(state, data, devices.split(batch), None)
        rates.append(devices.fetch(metrics)["learning_rate"])
    return devices.fetch(state), rates


def test_shared_steps_compute_the_same_bits(make, monkeypatch):
    shared, traces = SharedPrograms(), []
    train_step = programs.train_step
    monkeypatch.setattr(programs, "train_step", lambda *a: traces.append(a) or train_step(*a))
    for rate, seed in ((0.03, 1), (0.2, 2**31 + 5)):
        experiment = make(KEYS | {"schedule.learning_rate": rate, "seed": seed})
        state, rates = train(experiment, shared)
        # The second run uses the program of the first, where that computes the same bits.
        assert len(traces) == 1 or jax.__version_info__ < SHARING_JAX
    expected, expected_rates = train(experiment, UNSHARED)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    np.testing.assert_allclose(rates, expected_rates, rtol=1e-6)


@pytest.mark.skipif(jax.__version_info__ < SHARING_JAX, reason="shares no steps")
def test_runs_that_differ_in_more_share_nothing(make):
    shared = SharedPrograms()
    for keys in ({}, {"label_smoothing": 0.2}, {"label_smoothing": 0.2, "seed": 4}):
        shared.train_step(make(keys), 1)
    assert len(shared._compiled) == 2


def test_a_scaled_backbone_is_compiled_for_each_run(make):
    shared = SharedPrograms()
    shared.train_step(make({"optimizer.backbone_lr_scale": 0.1}), 1)
    assert not shared._compiled


@pytest.mark.skipif(jax.__version_info__ < SHARING_JAX, reason="shares no steps")
@pytest.mark.parametrize("labels", ["0112", "0012", "0011"])
def test_runs_on_other_arrays_share_only_what_is_the_same(make, labels):
    shared = SharedPrograms()

    def sources(labels):
        labels = np.array([int(label) for label in labels] * 16)
        names = [f"class {k}" for k in range(labels.max() + 1)]
        images = np.zeros((len(labels), 8, 8, 3), np.uint8)
        return tuple(arrays_source(images, labels, names, split) for split in ("train", "test"))

    keys = {"class_weights": "balanced", "batch_size": 32}
    for each in ("0012", labels):
        experiment = make(keys, sources(each))
        shared.train_step(experiment, 1)
        shared.eval_step(experiment)
    assert len(shared._compiled) == (2 if labels == "0012" else 4)
