"""Train the smoke tests of recipes, one after another in this process: DIR RECIPE…

Prints one JSON object per line: ``name`` and ``result``. Nothing is plotted, and networks compute
in float32 and have two stages, or one if another recipe has trained that network with two, since
most of the time is compilation. Only one recipe is trained as users run it.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import train.loop
import train.reporting.observers
from tests.without_report import NoReport
from train.config.loading import load_config
from train.engine.experiment import make_model
from train.runtime.signals import StopRequest

SMOKE = [("smoke", "true")]
CHEAPER = [
    *SMOKE,
    ("model.stage_sizes", "1,1"),
    ("model.output_stride", "0"),  # two stages have no stride of 16
    ("model.dtype", "float32"),
]
WHOLE = "resnet50_imagenet_a3"


def small_form(recipe, trained):
    """Return the recipe's small configuration and add its network to the ``trained`` ones."""
    config = load_config(recipe, CHEAPER)
    network = str(make_model(config, 10))
    if network in trained and not config.freeze:  # which may freeze the only stage
        config.model.stage_sizes = (1,)
    trained.add(network)
    return config


def main(folder, *recipes):
    train.reporting.observers.LiveReport = NoReport
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
