"""Training from Python: the same bits as the command, from any kind of data."""

import json
from functools import partial

import grain
import jax
import numpy as np
import pytest

from docs.notebook import notebook
from tests.conftest import ROOT
from tests.train.test_main import final_state
from train import Callback, arrays_source, fit
from train.data.datasets import open_source
from train.engine.devices import Pmap
from train.engine.experiment import make_model, make_step_config
from train.engine.step import create_state, eval_step, train_step
from train.loop import train
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest


@pytest.fixture
def config(digits_config):
    digits_config.model.stage_sizes = (1,)
    return digits_config


@pytest.fixture
def digits(config):
    """Gray images and labels for training and evaluation, in the order of the prepared data."""
    parts = []
    for split in ("train", "test"):
        source = open_source(config.dataset, split)
        images, labels = zip(*map(source.decode, range(len(source))), strict=True)
        parts.append((np.stack(images)[..., 0], np.array(labels)))
    return parts


@pytest.fixture
def expected(config, tmp_path):
    """The last checkpoint and evaluation of the run on the prepared data set."""
    result = train(config, str(tmp_path / "prepared"), StopRequest())
    return final_state(tmp_path / "prepared"), result


class Recorder(Callback):
    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def on_step(self, step):
        self.calls.append(("step", step))
        if step == self.fails_at:
            raise ZeroDivisionError

    def on_log(self, row):
        self.calls.append(("log", row["step"]))

    def on_evaluation(self, step, evaluation):
        self.calls.append(("evaluation", step, evaluation["top1"]))

    def on_end(self, evaluation):
        self.calls.append(("end", evaluation["step"]))


def test_every_kind_of_data_gives_the_bits_of_the_data_set(config, digits, expected, tmp_path):
    state, result = expected
    train_data, test_data = digits
    records = [
        grain.MapDataset.source([{"image": i, "label": int(k)} for i, k in zip(*part, strict=True)])
        for part in digits
    ]
    kinds = {
        "arrays": (train_data, test_data),
        "source": (arrays_source(*train_data), arrays_source(*test_data, split="test")),
        "grain": records,
    }
    for name, (first, second) in kinds.items():
        fitted = fit(config, str(tmp_path / name), first, second)
        jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / name), state)
        assert fitted.evaluation == result
        assert fitted.history[-1]["eval/top1"] == result["top1"]
    images = list(test_data[0])
    assert (fitted.run.predict(images).argmax(1) == test_data[1]).mean() == result["top1"]
    assert fitted.curves()._repr_svg_().startswith("<svg")
    assert config.dataset.name == "digits"  # the caller's is not changed


def test_callbacks_are_called_and_an_exception_can_be_resumed(config, digits, expected, tmp_path):
    config.checkpoint.every_steps = 1
    with pytest.raises(ZeroDivisionError):
        fit(config, str(tmp_path / "run"), *digits, callbacks=[Recorder(fails_at=2)])
    recorder = Recorder()
    fitted = fit(config, str(tmp_path / "run"), *digits, callbacks=[recorder])
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "run"), expected[0])
    top1 = fitted.evaluation["top1"]
    assert recorder.calls[-4:] == [("step", 3), ("log", 3), ("evaluation", 3, top1), ("end", 3)]
    assert fitted.evaluation == expected[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])], "eval_data is missing"),
        ([[1, 2], [1, 2]], "records for train must be"),
        ([7, 7], "the data for train must be a pair"),
        ([(np.zeros((4, 8, 8)), [0, 1, 0, 1])] * 2, "must be uint8, not float64"),
        ([(np.zeros((4, 8, 8), np.uint8), [0, 1])] * 2, "4 images but 2 labels"),
    ],
)
def test_wrong_data_are_errors(config, tmp_path, data, message):
    with pytest.raises(UsageError, match=message):
        fit(config, str(tmp_path / "run"), *data)
    assert not (tmp_path / "run").exists()


def test_folds_of_given_data_are_an_error(config, digits, tmp_path):
    config.dataset.fold = "1/2"
    with pytest.raises(UsageError, match=r"give its parts as train_data and eval_data"):
        fit(config, str(tmp_path / "run"), *digits)


@pytest.mark.parametrize("form", ["arrays", "records"])
def test_a_run_is_not_resumed_with_other_images(form, config, digits, tmp_path):
    """Of the same number and classes: only the pixels differ."""
    config.num_steps = 1

    def given(images, labels):
        if form == "arrays":
            return images, labels
        return [{"image": i, "label": int(k)} for i, k in zip(images, labels, strict=True)]

    workdir = str(tmp_path / "run")
    (images, labels), test_data = digits
    fit(config, workdir, given(images, labels), given(*test_data))
    with pytest.raises(RunError, match="other images or labels in"):
        fit(config, workdir, given(255 - images, labels), given(*test_data))
    assert fit(config, workdir, given(images, labels), given(*test_data)).evaluation["step"] == 1


def test_the_step_runs_under_plain_jit(config, digits):
    """It computes what it does on one device of pmap."""
    config.sync_batch_norm = True
    model = make_model(config, 10)
    mapped = make_step_config(config, model, steps_per_epoch=22, num_steps=44)
    plain = mapped.on_one_device()
    (images, labels), _ = digits
    batch = {"image": np.repeat(images[:16, :, :, None], 3, axis=3), "label": np.int32(labels[:16])}
    state = create_state(plain, (8, 8, 3))
    ours, metrics = jax.jit(partial(train_step, plain))(state, batch)
    devices = Pmap(jax.devices()[:1])
    step = devices.train(lambda state, data, batch: train_step(mapped, state, batch))
    theirs, expected = step(devices.replicate(state), {}, devices.split(batch))
    check = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(check, ours, devices.fetch(theirs))
    jax.tree.map(check, metrics, devices.fetch(expected))
    flags = {"valid": np.ones(16, bool), "bad": np.zeros(16, bool)}
    sums = jax.jit(partial(eval_step, plain))(ours, batch | flags)
    assert sums["examples"] == 16 and 0 <= sums["top1"] <= sums["top5"] <= 16


def test_the_notebook_is_that_of_the_page():
    text = (ROOT / "docs/notebooks/training.ipynb").read_text()
    assert text == notebook((ROOT / "docs/python.md").read_text())
    assert [cell["cell_type"] for cell in json.loads(text)["cells"]].count("code") == 6
