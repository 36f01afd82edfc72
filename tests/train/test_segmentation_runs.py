"""Runs of task='segmentation': trained, interrupted, evaluated, reported and planned."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from tests.conftest import ROOT
from tests.flags import xla_flags
from tests.train.test_logged_windows import TIMES, At, kill
from train.config.loading import default_config
from train.engine.experiment import make_model, make_step_config
from train.engine.programs import SharedPrograms
from train.engine.run_evaluation import EvaluationOptions, evaluate_run
from train.engine.step import abstract_state, evaluated_variables
from train.engine.stored_pixel_counts import read as read_counts
from train.loop import train
from train.plan.estimate import plan
from train.reporting.report import run_report
from train.reporting.task_reports import task_report
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest
from train.tasks.segmentation_metrics import class_iou
from train.workdir import run_files
from train.workdir.checkpoints import Checkpoints
from train.workdir.metrics_log import read_rows

CLASSES = ("background", "circle", "square", "triangle", "cross")


def segmentation_config():
    """Return a small network with an auxiliary head, for five steps in two micro-batches."""
    config = default_config()
    config.task = "segmentation"
    config.model.name = "fcn_resnet50"
    config.model.update(block="residual", stage_sizes=(1, 1), width=8, aux_head=True)
    config.dataset.update(
        name="drawn_shapes", image_size=32, train_split="train[:64]", eval_split="test[:26]"
    )
    config.augment.hflip = True
    config.batch_size, config.grad_accum_steps = 16, 2
    config.ema.decay = 0.5
    config.num_steps, config.log.every_steps, config.log.to = 5, 2, ()
    config.eval.every_epochs = 0.5
    config.schedule.name, config.schedule.power = "polynomial", 0.9
    config.schedule.learning_rate = 0.05
    return config


@pytest.fixture(scope="module")
def programs():
    return SharedPrograms()


@pytest.fixture(scope="module")
def run(tmp_path_factory, programs):
    """A finished run: its workdir and its result."""
    path = str(tmp_path_factory.mktemp("segmentation") / "run")
    return path, train(segmentation_config(), path, StopRequest(), programs=programs)


def final_state(path, step="last"):
    config = run_files.read_config(path)
    step_config = make_step_config(config, make_model(config, 5), 1, 1)
    with Checkpoints(path) as checkpoints:
        return checkpoints.restore(step, abstract_state(step_config, (32, 32, 3))), step_config


def test_run_has_metrics_a_best_checkpoint_and_a_report(run):
    path, result = run
    assert result["examples"] == 26 and result["step"] == 5
    assert list(result)[:4] == ["split", "examples", "miou", "pixel_accuracy"]
    rows = read_rows(path)
    assert {"train/loss", "train/pixel_accuracy", "eval/miou", "eval/pixel_accuracy"} <= {
        name for row in rows for name in row
    }
    assert [row["step"] for row in rows if "eval/miou" in row] == [2, 4, 5]
    info = run_files.read_description(path)
    assert (info.kind, info.best_by.metric) == ("segmentation", "miou")
    assert info.class_names == CLASSES
    html = (open(os.path.join(path, "report.html"), encoding="utf-8")).read()
    assert "Intersection over union of each class" in html
    assert all(name in html for name in CLASSES)
    [part] = run_report.read_parts(path)["evaluations"].values()
    iou = [one["iou"] for one in part["classes"] if one["iou"] is not None]
    assert part["miou"] == pytest.approx(np.mean(iou), abs=1e-12) == result["miou"]


def test_miou_is_that_of_the_networks_answers(run):
    """By images one at a time, and scikit-learn; the evaluation has batches and devices."""
    path, result = run
    evaluated = evaluate_run(path, "last")
    assert evaluated.result["miou"] == result["miou"]
    stored = read_counts(path)
    assert stored.step == 5 and len(stored) == 26 and stored.counts.shape[1:] == (3, 5)
    assert np.nanmean(class_iou(*stored.counts.sum(0))) == pytest.approx(result["miou"], abs=1e-12)
    state, step_config = final_state(path)
    loader = evaluated.loader
    apply = jax.jit(lambda images: step_config.model.apply(variables, images))
    variables = evaluated_variables(step_config, state)
    labels, answers = [], []
    for index in range(len(loader)):
        image = loader.preprocessing.normalize(loader.cached["image"][index : index + 1])
        labels.append(loader.cached["label"][index].ravel())
        answers.append(np.asarray(apply(image)).argmax(-1).ravel())
    labels, answers = np.concatenate(labels), np.concatenate(answers)
    assert result["pixel_accuracy"] == pytest.approx((labels == answers).mean(), abs=1e-9)
    union = np.union1d(labels, answers)
    expected = jaccard_score(labels, answers, labels=union, average="macro")
    assert result["miou"] == pytest.approx(expected, abs=1e-9)
    metrics = task_report(evaluated).compute(evaluated)
    assert [one.pixels for one in metrics.classes] == np.bincount(labels, minlength=5).tolist()
    summary = task_report(evaluated).summary(evaluated, metrics)
    assert "mIoU" in summary and "lowest IoU" in summary


def test_mirrored_images_have_mirrored_answers(run):
    """With the average over both, every number of the evaluation may change, but not its size."""
    path, result = run
    flipped = evaluate_run(path, "last", EvaluationOptions(tta="flip")).result
    assert flipped["examples"] == 26 and flipped["loss"] != result["loss"]
    assert flipped["loss"] == pytest.approx(result["loss"], rel=0.1)


def test_a_killed_run_continues_bit_for_bit(run, programs, tmp_path):
    path, result = run
    config = segmentation_config()
    config.checkpoint.every_steps = 1
    with pytest.raises(KeyError):
        train(config, str(tmp_path / "run"), StopRequest(), None, [At(3, kill)], programs)
    assert train(config, str(tmp_path / "run"), StopRequest(), programs=programs) == result
    states = [final_state(each)[0] for each in (path, str(tmp_path / "run"))]
    jax.tree.map(np.testing.assert_array_equal, *states)

    def rows(path):
        return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(path)]

    assert rows(str(tmp_path / "run")) == rows(path)


def test_a_loss_that_is_not_finite_ends_the_run_with_a_report(tmp_path):
    config = segmentation_config()
    config.schedule.learning_rate, config.log.every_steps = 1e30, 1
    config.checkpoint.every_steps = 1
    with pytest.raises(RunError, match=r"not finite in step \d"):
        train(config, str(tmp_path / "run"), StopRequest())
    report = json.loads((tmp_path / "run/nonfinite.json").read_text())
    assert report["step"] > 1 and len(report["images"]) == 16
    assert report["step"] not in run_files.saved_steps(str(tmp_path / "run"))


def test_plan_finds_no_problem(tmp_path):
    result = plan(segmentation_config(), str(tmp_path / "run"), str(tmp_path / "plan"))
    assert result["problems"] == [] and not (tmp_path / "run").exists()


def test_networks_and_data_of_other_tasks_are_refused(tmp_path):
    def message(**keys):
        config = segmentation_config()
        config.update_from_flattened_dict(keys)
        with pytest.raises(UsageError) as error:
            train(config, str(tmp_path / "run"), StopRequest())
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert "'resnet18' returns logits per image" in message(
        **{"model.name": "resnet18", "model.aux_head": False}
    )
    assert "returns logits per pixel" in message(task="classification")
    assert "needs masks" in message(**{"dataset.name": "digits"})


SCRIPT = """
import json, sys
import jax, numpy as np
from tests.train.test_segmentation_runs import segmentation_config
from train.engine.devices import Pmap, ShardMap
from train.engine.experiment import build_experiment
from train.engine.step import create_state, eval_step, train_step

config = segmentation_config()
config.sync_batch_norm, config.grad_accum_steps = True, 1
# Without dropout, whose random numbers are those of the device.
config.model.update(name="semantic_fpn_resnet18", block="", head_norm="batch", aux_head=False)
config.model.update(head_channels=8, pyramid_channels=8)
experiment = build_experiment(config, sys.argv[1])
step_config, loader = experiment.step_config, experiment.train_loader.load()
batches = [
    {name: loader.cached[name][batch["record"]] for name in ("image", "label")}
    for batch in loader.train_batches(experiment.sampler, range(4))
]
valid = np.arange(16) < 13
for kind, counts in ((Pmap, (1, 2, 4)), (ShardMap, (4,))):
    for count in counts:
        devices = kind(jax.local_devices()[:count])
        step = devices.train(lambda s, data, batch: train_step(step_config, s, batch))
        evaluate = devices.evaluate(lambda s, data, batch: eval_step(step_config, s, batch))
        first = state = devices.replicate(create_state(step_config, (32, 32, 3)))
        masked = batches[0] | {"valid": valid, "bad": ~valid}
        sums = devices.fetch(evaluate(first, {}, devices.split(masked)))
        losses = []
        for batch in batches:
            state, metrics = step(state, {}, devices.split(batch))
            losses.append(float(devices.fetch(metrics)["loss"]))
        params = devices.fetch(state).params
        flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        row = {"kind": kind.__name__, "devices": count, "losses": losses, "params": flat.tolist()}
        print(json.dumps(row | {"confusion": sums["confusion"].tolist()}))
"""


def test_number_of_devices_does_not_matter_with_sync_batch_norm(tmp_path):
    """Also of pixels: random crops leave each device another number of those with a class."""
    env = os.environ | {"XLA_FLAGS": xla_flags(4), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    process = subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    first, *others = map(json.loads, process.stdout.splitlines())
    assert len(others) == 3 and np.sum(first["confusion"]) == 13 * 32 * 32
    for other in others:
        np.testing.assert_allclose(other["losses"], first["losses"], rtol=2e-4)
        difference = np.subtract(other["params"], first["params"])
        assert np.linalg.norm(difference) <= 1e-4 * np.linalg.norm(first["params"])
        # A pixel whose two largest logits differ by the rounding may change its class.
        assert np.abs(np.subtract(other["confusion"], first["confusion"])).sum() <= 4
