"""Trains recipes in their smoke form, one after another in this process: DIR RECIPE…

Prints a line of JSON each: ``name`` and ``result``. Nothing is drawn, and nets have two stages
and compute in float32, which halves the time that compiling takes; all but one, which is trained
as users see it.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import train.loop
from train.config import load_config
from train.signals import StopRequest

SMOKE = [("smoke", "true")]
CHEAPER = [*SMOKE, ("model.stage_sizes", "1,1"), ("model.dtype", "float32")]
WHOLE = "resnet50_imagenet_a3"


class NoPictures:
    def __init__(self, path, warn):
        pass

    def samples(self, take):
        pass

    def curves(self, at_once=False):
        pass

    def evaluated(self, tell):
        pass


def main(folder, *recipes):
    train.loop.LiveReport = NoPictures
    for recipe in recipes:
        name = Path(recipe).stem
        with contextlib.redirect_stdout(sys.stderr), StopRequest() as stop:
            config = load_config(recipe, SMOKE if name == WHOLE else CHEAPER)
            result = train.loop.train(config, os.path.join(folder, name), stop)
        print(json.dumps({"name": name, "result": result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
