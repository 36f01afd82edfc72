"""Own losses, tasks and metrics are checked before training."""

import re

import pytest

from train import register_augmentation, register_loss, register_metric, register_task
from train.config.access import set_key
from train.config.loading import default_config
from train.config.registries import LOSSES
from train.config.task_defaults import set_task_defaults
from train.data.augment.configured import make_augment
from train.runtime.errors import UsageError
from train.tasks.classification import top1
from train.tasks.configured import make_task
from train.tasks.task import Task


@pytest.fixture
def config():
    return default_config()


def test_parts_that_return_other_shapes_are_errors_at_the_start(config):
    register_augmentation("half", lambda augment: lambda image, key: image[::2])
    register_metric("mean", lambda logits, labels: logits.mean())
    config.augment.policy, config.dataset.image_size = "half", 16
    with pytest.raises(
        UsageError, match=r"policy='half' cannot be used: it returns .*\(8, 16, 3\)"
    ):
        make_augment(config)
    config.eval.metrics = ("mean",)
    with pytest.raises(UsageError, match=r"metric 'mean' .* it returned float32 \(\)"):
        make_task(config, 10)


@pytest.mark.parametrize("task", ["classification", "multi_label"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("augment.crop_size", (32, 48)),
        ("augment.scale_range", (1.0, 1.0)),
        ("aux_loss_weight", 0.4),
    ],
)
def test_keys_of_segmentation_are_refused_for_images_without_masks(config, task, key, value):
    config.task = task
    set_task_defaults(config)
    make_task(config, 10)
    set_key(config, key, value)
    message = rf"config\.{key}={re.escape(repr(value))} has no meaning with task='{task}'"
    with pytest.raises(UsageError, match=message):
        make_task(config, 10)


def raising(*_):
    raise ValueError("no dice")


def with_probabilities(part, probabilities):
    part.probabilities = probabilities
    return part


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda c: raising,
            r"loss 'own' cannot be computed: ValueError: no dice \(test_configured",
        ),
        (lambda c: lambda x, t: x[:, :1], r"one number per image.* returned float32 \(4, 1\)"),
        (lambda c: lambda x, t: x.argmax(1), "loss 'own' must be floating-point .* not int32"),
        (
            with_probabilities(lambda c: lambda x, t: x[:, 0], "softplus"),
            "loss 'own' has probabilities='softplus'; valid are 'softmax' and 'sigmoid'",
        ),
    ],
)
def test_a_wrong_loss_is_an_error_at_the_start(config, make, message):
    register_loss("own", make)
    config.loss = "own"
    with pytest.raises(UsageError, match=message) as caught:
        make_task(config, 10)
    assert "ShapeDtypeStruct" not in str(caught.value)


def test_a_wrong_task_is_described_without_its_functions(config):
    loss = LOSSES["cross_entropy"](config)
    config.task = "own"
    for task, message in (
        (Task(loss, loss, {"acc": top1}), "no metric 'top1', which .*; its metrics are acc$"),
        (Task(loss, loss, {"top1": top1}, probabilities="none"), "'own' has probabilities='none'"),
        ({}, "must return a train.tasks.task.Task, not an object of the type dict$"),
    ):
        register_task("own", lambda config, task=task: task)
        with pytest.raises(UsageError, match=message):
            make_task(config, 10)
