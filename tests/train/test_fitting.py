"""Training from Python: the same bits as the command, from any kind of data."""

import json
import os
import re
import signal
from functools import partial

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from docs.notebook import notebook
from tests.conftest import ROOT
from tests.train.test_main import final_state
from train import Callback, arrays_source, fit
from train.data.datasets import open_source
from train.data.sources.given_source import as_source
from train.engine.devices import Pmap
from train.engine.experiment import make_model, make_step_config
from train.engine.step import create_state, eval_step, train_step
from train.loop import train
from train.reporting import task_reports
from train.reporting.evaluation_results import evaluation_metrics
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest

IMAGES = np.zeros((4, 8, 8), np.uint8)
RECORD = {"image": IMAGES[0], "label": 0}


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


def test_callbacks_are_called_and_an_exception_can_be_resumed(
    config, digits, expected, tmp_path, monkeypatch
):
    config.checkpoint.every_steps = 1
    with pytest.raises(ZeroDivisionError):
        fit(config, str(tmp_path / "run"), *digits, callbacks=[Recorder(fails_at=2)])
    recorder, computed = Recorder(), []

    def compute(evaluated):
        computed.append(evaluated)
        return evaluation_metrics(evaluated)

    report = task_reports.REPORTS["classification"]._replace(compute=compute)
    monkeypatch.setitem(task_reports.REPORTS, "classification", report)
    fitted = fit(config, str(tmp_path / "run"), *digits, callbacks=[recorder])
    assert len(computed) == 1  # for the report and for the warnings
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "run"), expected[0])
    top1 = fitted.evaluation["top1"]
    assert recorder.calls[-4:] == [("step", 3), ("log", 3), ("evaluation", 3, top1), ("end", 3)]
    assert fitted.evaluation == expected[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])], "eval_data is missing"),
        ([[1, 2], [1, 2]], "records for train must be .* record 0 is int"),
        ([[IMAGES, [0, 1, 0, 1]]] * 2, r"record 0 is ndarray of the shape \(4, 8, 8\)"),
        ([IMAGES, IMAGES], r"must be a pair .* not ndarray of the shape \(4, 8, 8\)"),
        ([(IMAGES, 1, 2)] * 2, r"record 0 is ndarray of the shape"),
        ([{"image": IMAGES, "label": 1}] * 2, "not dict with the keys 'image', 'label'"),
        ([[RECORD, {"image": 1}]] * 2, "record 1 is dict with the keys 'image'"),
        ([grain.MapDataset.source([RECORD]).repeat()] * 2, r"endless; drop \.repeat\(\)"),
        ([grain.MapDataset.source([RECORD]).filter(lambda _: False)] * 2, "0 is NoneType"),
        ([([IMAGES[0] / 255] * 2, [0, 1])] * 2, "must be uint8, not float64"),
        ([(np.uint16(IMAGES), [0, 1, 0, 1])] * 2, "set dataset.bits=16"),
        ([7, 7], "the data for train must be a pair"),
        ([(np.zeros((4, 8, 8)), [0, 1, 0, 1])] * 2, "must be uint8, not float64"),
        ([(np.zeros((4, 8, 8), np.uint8), [0, 1])] * 2, "4 images but 2 labels"),
    ],
)
def test_wrong_data_are_errors(config, tmp_path, data, message):
    with pytest.raises(UsageError, match=message):
        fit(config, str(tmp_path / "run"), *data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "value"), [("train_split", "train[:80%]"), ("fold", "1/2")])
def test_a_division_of_given_data_is_an_error(config, digits, tmp_path, key, value):
    config.dataset[key] = value
    with pytest.raises(UsageError, match=rf"{key}='{re.escape(value)}' .* train_data and"):
        fit(config, str(tmp_path / "run"), *digits)


def test_a_class_without_images_in_one_split_needs_names(config, tmp_path):
    data = (IMAGES, [0, 1, 2, 0]), (IMAGES, [0, 1, 0, 1])
    with pytest.raises(UsageError, match=r"lacks '2'; .* class_names=\['0', '1', '2'\]"):
        fit(config, str(tmp_path / "run"), *data)


@pytest.mark.parametrize(
    ("workdir", "callbacks", "message"),
    [
        (None, [], "workdir must be the folder of a run, not None"),
        ("run", Callback(), "callbacks must be a list"),
        ("run", [Callback], "callbacks must be a list"),
        ("run", [print], "callbacks must be a list"),
    ],
)
def test_wrong_arguments_are_errors(config, digits, workdir, callbacks, message):
    with pytest.raises(UsageError, match=message):
        fit(config, workdir, *digits, callbacks=callbacks)


def test_a_second_interrupt_is_an_exception(config, digits, tmp_path):
    class Impatient(Callback):
        def on_step(self, step):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "run", *digits, callbacks=[Impatient()])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_images_of_any_library_are_converted(config, tmp_path):
    """Each form is read as the NumPy array of the same pixels."""
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    path = tmp_path / "0.png"
    Image.fromarray(images[0]).save(path)
    forms = [
        images,
        jnp.asarray(images),
        list(map(Image.fromarray, images)),
        list(jnp.array(images)),
    ]
    forms += [[str(path), images[1]], [path.read_bytes(), images[1]]]
    for form in forms:
        records = [{"x": image, "y": label} for image, label in zip(form, "ab", strict=True)]
        config.dataset.update(image_key="x", label_key="y")
        for data in ((form, ["a", "b"]), records):
            source = as_source(data, "train", config.dataset)
            found = np.stack([source.decode(index)[0] for index in range(2)])
            np.testing.assert_array_equal(found, images)


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


def test_arrays_of_zeros_and_ones_are_learned_and_resumed_bit_for_bit(config, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (48, 8, 8), np.uint8)
    labels = rng.integers(0, 2, (48, 10)).astype(np.uint8)
    config.task, config.eval.metric, config.batch_size = "multi_label", "map", 16
    config.checkpoint.every_steps = 1
    data = (images[:32], labels[:32]), (images[32:], labels[32:])
    names = list("abcdefghij")
    whole = fit(config, tmp_path / "whole", *data, class_names=names)
    with pytest.raises(ZeroDivisionError):
        fit(config, tmp_path / "run", *data, class_names=names, callbacks=[Recorder(2)])
    resumed = fit(config, tmp_path / "run", *data, class_names=names)
    assert resumed.evaluation["map"] == whole.evaluation["map"]
    states = (final_state(tmp_path / name) for name in ("run", "whole"))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert resumed.run.predict(list(images[:2])).shape == (2, 10)
    assert resumed.run.several_labels and resumed.run.class_names == tuple(names)
