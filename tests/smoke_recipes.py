"""Trains recipes in their smoke form, one after another in this process: DIR RECIPE…

Prints a line of JSON each: ``name`` and ``result``. Nothing is drawn, and nets compute in float32
and have two stages, or one where another recipe has trained that net with two: compiling takes most
of the time. All but one, which is trained as users see it.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import train.loop
from tests.without_report import NoReport
from train.config.loading import load_config
from train.engine.experiment import make_model
from train.runtime.signals import StopRequest

SMOKE = [("smoke", "true")]
CHEAPER = [*SMOKE, ("model.stage_sizes", "1,1"), ("model.dtype", "float32")]
WHOLE = "resnet50_imagenet_a3"


def small_form(recipe, trained):
    """The recipe's small configuration; ``trained`` has the nets that were, and gets this one."""
    config = load_config(recipe, CHEAPER)
    net = str(make_model(config, 10))
    if net in trained and not config.freeze:  # which leaves nothing of one stage to be learned
        config.model.stage_sizes = (1,)
    trained.add(net)
    return config


def main(folder, *recipes):
    train.loop.LiveReport = NoReport
    trained = set()
    for recipe in recipes:
        name = Path(recipe).stem
        with contextlib.redirect_stdout(sys.stderr), StopRequest() as stop:
            whole = name == WHOLE
            config = load_config(recipe, SMOKE) if whole else small_form(recipe, trained)
            result = train.loop.train(config, os.path.join(folder, name), stop)
        print(json.dumps({"name": name, "result": result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
