"""Whole runs on images that are not square RGB images of 8 bits."""

import json

import numpy as np
import pytest

from flax_resnet import load_run
from tests.train.pictures import photograph
from train.loop import train
from train.runtime.signals import StopRequest


def tiny(config):
    config.model.update(name="resnet20", stage_sizes=(1, 1), width=4)
    config.num_steps = 2
    config.eval.every_epochs = config.checkpoint.every_epochs = 0
    config.schedule.warmup_epochs = 0
    return config


def test_images_that_are_not_square(digits_config, tmp_path, commands):
    """Trained with every geometric augmentation, then evaluated, predicted and explained."""
    config, workdir = tiny(digits_config), str(tmp_path / "run")
    config.dataset.update(image_size=(24, 40), train_sizes=(12,), train_size_epochs=())
    config.augment.update(pad_crop=2, hflip=True, rrc_scale=(0.5, 1.0), random_erasing=0.5)
    result = train(config, workdir, StopRequest())
    described = json.loads((tmp_path / "run/run.json").read_text())
    assert described["preprocessing"]["image_size"] == [24, 40]
    evaluated = commands.call("train.evaluate", "--workdir", workdir, "--output", tmp_path / "out")
    assert evaluated.returncode == 0, evaluated.stderr
    again = json.loads(evaluated.stdout.splitlines()[-1])
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5) and again["examples"] == 360
    run = load_run(workdir)
    image = photograph(0, 50, 100)
    crop = run.prepare(image)
    assert crop.shape == (1, 24, 40, 3)
    logits = run.model.apply(run.variables, run.preprocessing.normalize(crop))
    np.testing.assert_allclose(run.logits(image), logits, rtol=1e-4, atol=1e-5)
    assert run.explain(image).shape == (1, 24, 40)
