"""train.main, but draws no pictures and no report, which takes a third of a short run."""

import train.loop
from train.main import main
from train.runtime.cli import run_command


class NoPictures:
    """In place of LiveReport."""

    def __init__(self, path, warn):
        pass

    def samples(self, take):
        pass

    def curves(self, at_once=False):
        pass

    def evaluated(self, tell):
        pass


if __name__ == "__main__":
    train.loop.LiveReport = NoPictures
    run_command(main)
