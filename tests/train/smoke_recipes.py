"""Trains recipes in their smoke form, one after another in this process: DIR RECIPE…

Prints a line of JSON each: ``name`` and ``result``. Nets have two stages and compute in
float32, which halves the time that compiling takes, and nothing is drawn.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import train.loop
from train.config import load_config
from train.signals import StopRequest

CHEAPER = [("smoke", "true"), ("model.stage_sizes", "1,1"), ("model.dtype", "float32")]


class NoPictures:
    def __init__(self, path, warn):
        pass

    def samples(self):
        pass

    def curves(self, at_once=False):
        pass


def main(folder, *recipes):
    train.loop.Pictures, train.loop.first_images = NoPictures, lambda *_: ()
    for recipe in recipes:
        name = Path(recipe).stem
        with contextlib.redirect_stdout(sys.stderr), StopRequest() as stop:
            result = train.loop.train(
                load_config(recipe, CHEAPER), os.path.join(folder, name), stop
            )
        print(json.dumps({"name": name, "result": result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
