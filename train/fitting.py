"""Training from Python, for example in a notebook: :func:`fit`."""

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from flax_resnet.runs import Run, load_run
from flax_resnet.text import truncate
from train.config.loading import check_config, load_config
from train.data.sources.given_source import GIVEN, as_source
from train.engine.callbacks import Callback
from train.loop import train
from train.reporting.report import learning_curves
from train.runtime.cli import configure_jax
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import run_name
from train.runtime.signals import StopRequest
from train.workdir import run_files
from train.workdir.metrics_log import read_rows


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
      workdir: its folder.
      evaluation: the evaluation of the final state: ``examples``, ``top1``, ``loss``, …
    """

    workdir: str
    evaluation: dict[str, Any]

    @property
    def run(self) -> Run:
        """The trained network with its weights; see :func:`flax_resnet.load_run`."""
        return load_run(self.workdir)

    @property
    def history(self) -> list[dict[str, float | None]]:
        """The rows of ``metrics.jsonl``."""
        return read_rows(self.workdir)

    def curves(self) -> "Drawing":
        """Return the learning curves, which a notebook shows as a picture."""
        config = run_files.read_config(self.workdir)
        return Drawing(learning_curves.svg_text(self.history, config, run_name(self.workdir)))


class Drawing(str):
    """An SVG file's text, which a notebook shows as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def fit(
    config: ConfigDict | str,
    workdir: str | os.PathLike,
    train_data: Any = None,
    eval_data: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train a configuration, or resume the run in ``workdir``.

    >>> config = load_config("resnet20_digits")
    >>> fitted = fit(config, "runs/digits", (images, labels), (test_images, test_labels))
    >>> fitted.run.predict(list(test_images))

    An interrupt (Ctrl-C, or a notebook's stop button) ends the run after saving; the same call
    resumes it. A second interrupt raises KeyboardInterrupt at once.

    Args:
      config: a configuration, or the name or path of a recipe.
      workdir: the run's folder; ``~`` is the home folder.
      train_data: a pair of arrays ``(images, labels)`` as for :func:`train.arrays_source`, a
        :class:`train.DataSource`, a Hugging Face ``datasets.Dataset``, or a sequence of
        ``{"image", "label"}`` such as a ``grain.MapDataset``; default: ``config.dataset``.
      eval_data: likewise, for evaluation; both are given, or neither.
      class_names: names of the classes, if the data have none.
      callbacks: called during the run.

    Raises:
      UsageError, RunError: the run cannot start or continue.
      train.loop.Interrupted: it was interrupted.
    """
    if not isinstance(workdir, (str, os.PathLike)):
        raise UsageError(f"workdir must be the folder of a run, not {workdir!r}")
    workdir = os.path.expanduser(os.fspath(workdir))
    _check_callbacks(callbacks)
    if isinstance(config, str):
        config = load_config(config)
    config = config.copy_and_resolve_references()
    if (train_data is None) != (eval_data is None):
        missing = "eval_data" if eval_data is None else "train_data"
        raise UsageError(f"{missing} is missing; give the data for training and for evaluation")
    if train_data is not None:
        _check_whole(config.dataset)
        config.dataset.update(name=GIVEN, data_dir="", labels="")
    check_config(config)
    sources = None
    if train_data is not None:
        dataset = config.dataset
        sources = (
            as_source(train_data, dataset.train_split, dataset, class_names),
            as_source(eval_data, dataset.eval_split, dataset, class_names),
        )
        if sources[1].split == sources[0].split:  # such as the default of arrays_source
            sources = (sources[0], replace(sources[1], split=dataset.eval_split))
    configure_jax(config)
    stop = StopRequest(force=signal.default_int_handler)
    is_main = threading.current_thread() is threading.main_thread()  # only it receives signals
    with stop if is_main else nullcontext():
        evaluation = train(config, workdir, stop, sources, callbacks)
    return Fitted(workdir, evaluation)


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, Sequence) or not all(isinstance(c, Callback) for c in callbacks):
        raise UsageError(
            f"callbacks must be a list of instances of train.Callback, such as [Progress()], not"
            f" {truncate(repr(callbacks))}"
        )


def _check_whole(dataset: ConfigDict) -> None:
    """Raise UsageError if the configuration divides data, since given data are used whole."""
    divided = {key: "[" in str(dataset[key]) for key in ("train_split", "eval_split")}
    for key, is_divided in (divided | {"fold": bool(dataset.fold)}).items():
        if is_divided:
            whole = "" if key == "fold" else dataset[key].partition("[")[0]
            raise UsageError(
                f"config.dataset.{key}={dataset[key]!r} divides the data of config.dataset; give"
                f" its parts as train_data and eval_data, and reset it to {whole!r}"
            )
