"""An own task of several labels per image has what the project's task has."""

import dataclasses

import pytest

from flax_resnet import load_run
from tests.conftest import train_on_shapes
from tests.train.shapes import NAMES
from train import register_task
from train.compare.cross_validation import cross_validations
from train.compare.runs import read
from train.config.loading import check_config, default_config
from train.config.task_defaults import set_task_defaults
from train.engine.other_data import OtherData
from train.engine.run_evaluation import EvaluationOptions, evaluate_run
from train.reporting.calibration.results import calibrate
from train.runtime.errors import UsageError
from train.tasks.configured import make_task
from train.tasks.multi_label import multi_label
from train.tasks.task import Task


def tags(config):
    """Twice the loss of the project's task."""
    task = multi_label(config)
    return dataclasses.replace(task, loss=lambda *arguments: 2 * task.loss(*arguments))


@pytest.fixture
def own_task():
    register_task("tags", tags)
    return "tags"


def test_an_own_task_of_several_labels_is_evaluated_calibrated_and_pooled(
    own_task, shapes, tmp_path
):
    paths = [
        train_on_shapes(shapes, tmp_path / f"{k}", f"{k}/2", own_task, epochs=1.0) for k in (1, 2)
    ]
    other = OtherData(labels=str(shapes / "labels.csv"))
    evaluated = evaluate_run(paths[0], "last", EvaluationOptions(keep_logits=True), other)
    assert evaluated.result["examples"] == 160 and "map" in evaluated.result
    calibrate(paths[0], evaluated, True, []).store(paths[0])
    run = load_run(paths[0])
    assert run.several_labels and set(run.calibration.decisions) == {*NAMES}
    assert len(run.labels([str(shapes / "000.png")])) == 1
    runs = [read(path) for path in paths]
    [validation] = cross_validations(runs)
    assert validation.remark == "" and validation.images == 160
    assert {run.values["eval.metric"] for run in runs} == {"map"}


def test_defaults_follow_the_task_at_the_time_when_the_run_is_built(own_task):
    for task, metric in (("classification", "top1"), ("multi_label", "map"), (own_task, "map")):
        config = default_config()
        check_config(config)
        config.task = task
        config.dataset.name, config.dataset.labels = "table", "a.csv"
        set_task_defaults(config)
        assert config.eval.metric == metric
        assert config.dataset.label_separator == ("" if metric == "top1" else "|")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_metrics": Task.split_metrics}, "split_metrics, split_metric_names and rank"),
        ({"probabilities": "softmax"}, "needs probabilities='sigmoid'"),
        ({"rank": Task.rank}, "the rank of the task 'tags' cannot be computed"),
    ],
)
def test_parts_for_one_label_are_refused(changes, message):
    register_task("tags", lambda config: dataclasses.replace(multi_label(config), **changes))
    config = default_config()
    config.task = "tags"
    with pytest.raises(UsageError, match=message):
        make_task(config, 4)
