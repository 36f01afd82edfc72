"""train.main without plots and report, which take a third of a short run."""

import train.reporting.observers
from train.main import main
from train.runtime.cli import run_command


class NoReport:
    """Stands in for LiveReport."""

    def __init__(self, workdir, warn, findings):
        pass

    def draw_samples(self, take):
        pass

    def update(self, force):
        pass

    def set_evaluation(self, get, get_metrics):
        pass


if __name__ == "__main__":
    train.reporting.observers.LiveReport = NoReport
    run_command(main)
