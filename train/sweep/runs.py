"""The runs of a sweep, one after another in this process."""

import contextlib
import gc
import math
import os
import sys
import traceback
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from flax_resnet.weights import manifest
from flax_resnet.weights.checkpoints import FOLDER
from train.compare.__main__ import compare
from train.config import loading
from train.config.registries import larger_is_better
from train.engine.programs import SharedPrograms
from train.loop import Interrupted, train
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError, print_error, print_line, warn
from train.runtime.files import Locked, locked, writing
from train.runtime.formatting import pluralize
from train.runtime.signals import STOPPED, StopRequest
from train.sweep.definition import DIVISIONS, Definition, Settings, is_in, run_name, write
from train.workdir import run_files
from train.workdir.metrics_log import read_rows, to_json

PAGE = "compare.html"


def sweep(definition: Definition, workdir: str, trials: int | None, stop: StopRequest) -> int:
    """Train all runs that are not finished, and compare all.

    Args:
      definition: the sweep.
      workdir: its folder.
      trials: number of trials of a search; None for a grid.
      stop: once it is true, the current run saves, and the sweep ends.

    Returns:
      The exit status: 0, 1 if a run failed, 75 if the sweep was stopped.

    Raises:
      UsageError: the folder holds something else.
      RunError: the folder cannot be used.
    """
    with exclusive_lock(workdir):
        if not is_in(workdir, definition):
            write(workdir, definition)
        runner = Runner(definition, workdir, stop)
        try:
            if trials is None:
                combinations = list(definition.combinations())
                runner.total = len(combinations) * len(definition.seeds)
                for settings in combinations:
                    runner.train_seeds(settings)
            else:
                from train.sweep.search import search

                runner.total = trials * len(definition.seeds)
                search(definition.space, trials, workdir, runner.train_seeds)
        except Interrupted as interrupted:
            done = f"{len(runner.results)} of {pluralize(runner.total, 'run')} are finished"
            text = f"stopped by {interrupted}; {done}; run the same command to continue"
            print_line(text, sys.stderr)
            return STOPPED
        return finish(runner, workdir)


@contextlib.contextmanager
def exclusive_lock(workdir: str) -> Iterator[None]:
    """Lock the folder, created if needed, for this sweep; raise RunError if another has it."""
    with contextlib.ExitStack() as stack:
        path = os.path.join(workdir, "sweep.lock")
        try:
            with writing(f"the workdir {workdir!r}"):
                os.makedirs(workdir, exist_ok=True)
                has_locks = stack.enter_context(locked(path))
        except Locked as error:
            raise RunError(
                f"{error} sweeps in {workdir!r}; wait until it ends, or use another --workdir"
            ) from None
        if not has_locks:
            warn(f"the file system of {workdir!r} has no locks: do not start a second sweep there")
        yield


class Runner:
    """Trains runs and keeps their results.

    Args:
      definition: the sweep.
      workdir: its folder.
      stop: request to end early.

    Attributes:
      metric: the runs' ``eval.metric``.
      results: final evaluations by the run's name.
      settings: the settings of all runs by name, in order.
      failed: names of the runs that failed.
      total: number of runs.
    """

    def __init__(self, definition: Definition, workdir: str, stop: StopRequest):
        self.definition, self.workdir, self.stop = definition, workdir, stop
        self.metric = definition.config({}).eval.metric
        self.programs = SharedPrograms()
        self.results: dict[str, dict[str, Any]] = {}
        self.settings: dict[str, Settings] = {}
        self.failed: list[str] = []
        self.total = 0

    def train_seeds(self, settings: Settings) -> float | None:
        """Train with every seed; return the mean score, None if a run failed.

        Raises:
          Interrupted: the sweep is to stop.
        """
        results = [self.train(run) for run in self.definition.with_seeds(settings)]
        return None if None in results else mean(map(self.score, results))

    def score(self, result: dict[str, Any]) -> float:
        """Return the ``eval.metric`` of an evaluation, negative if smaller values are better."""
        value = result.get(self.metric)
        if value is None:  # such as AUROC of a single class
            return -math.inf
        return value if larger_is_better(self.metric) else -value

    def train(self, settings: Settings) -> dict[str, Any] | None:
        """Train one run unless it is finished; return its evaluation, None if it failed."""
        name = run_name(settings)
        path = os.path.join(self.workdir, name)
        self.settings[name] = settings
        title = f"run {len(self.settings)} of {self.total}: {name}"
        try:
            config = self.definition.config(settings)
            result = final_evaluation(path, config)
            if result is not None:
                print_line(f"{title} (finished)")
            else:
                if self.stop:
                    raise Interrupted(f"{self.stop.signal.name} before {name}")
                print_line(title)
                result = train(config, path, self.stop, programs=self.programs)
        except Interrupted:
            raise
        except (RunError, UsageError) as error:
            print_error(f"{name}: {error}")
        except (Exception, SystemExit):  # own parts may raise anything
            traceback.print_exc()
            print_error(f"{name} failed")
        else:
            self.results[name] = result
            return result
        finally:
            gc.collect()  # the arrays of a run on the devices, before those of the next
        if name not in self.failed:  # a search may try settings twice
            self.failed.append(name)
        return None


def final_evaluation(path: str, config: ConfigDict) -> dict[str, Any] | None:
    """Return the evaluation after the last step; None unless ``config`` is trained to its end."""
    saved, sessions = run_files.saved_steps(path), run_files.read_sessions(path)
    if not saved or not sessions:
        return None
    if saved[-1] != sessions[-1]["num_steps"] and not run_files.ended_early(path):
        return None
    if loading.differences(run_files.read_config(path), config):
        return None
    return manifest.read_metrics(os.path.join(path, FOLDER, str(saved[-1]))) or None


def finish(runner: Runner, workdir: str) -> int:
    """Write the comparison, print the result as JSON, and return the exit status."""
    status = 1 if runner.failed else 0
    paths = [os.path.join(workdir, name) for name in runner.settings]
    if logged := [path for path in paths if os.path.isdir(path) and read_rows(path)]:
        try:
            status |= compare(logged, os.path.join(workdir, PAGE), trust_recipe=False)
        except (RunError, UsageError) as error:  # the recipe has changed meanwhile, for example
            print_error(error)
            status = 1
    summary = {"runs": len(runner.settings), "failed": runner.failed, "best": best(runner)}
    print(to_json(summary), flush=True)
    return status


def best(runner: Runner) -> dict[str, Any] | None:
    """Return the settings with the best mean over seeds and folds; None if all failed.

    Settings are ranked by the mean ``eval.metric`` of their finished runs, equal ones by the mean
    loss. If folds
    or other divisions of the images are varied, settings that lack runs on some of them are left
    out, and none of the runs is the best.
    """
    grid = runner.definition.grid
    divided = any(key in grid for key in DIVISIONS)
    averaged = {*DIVISIONS} | ({"seed"} - {*grid})
    groups: dict[tuple, list[str]] = {}
    for name in runner.results:
        keys = tuple(item for item in runner.settings[name].items() if item[0] not in averaged)
        groups.setdefault(keys, []).append(name)
    if divided:
        most = max(map(len, groups.values()), default=0)
        groups = {keys: names for keys, names in groups.items() if len(names) == most}
    if not groups:
        return None

    def rank(names: list[str]) -> tuple[float, float]:
        results = [runner.results[name] for name in names]
        return mean(map(runner.score, results)), -mean(r["loss"] for r in results)

    keys, names = max(groups.items(), key=lambda group: rank(group[1]))
    # Tasks without top-1 accuracy have the metric that decides.
    leading = "top1" if "top1" in runner.results[names[0]] else runner.metric
    values = [runner.results[name][leading] for name in names]
    summary = {
        "keys": dict(keys),
        leading: mean(values),
        f"{leading}_std": stdev(values) if len(values) > 1 else None,
    }
    if runner.metric != leading:
        others = [runner.results[name].get(runner.metric) for name in names]
        summary[runner.metric] = None if None in others else mean(others)
    if divided:
        return summary | {"runs": len(names)}
    run = max(names, key=lambda name: rank([name]))
    return summary | {
        "seeds": len(names),
        "run": os.path.join(runner.workdir, run),
        f"run_{leading}": runner.results[run][leading],
    }
