"""Lines about the data of a run: what is trained on, what is evaluated, and images per class."""

import numpy as np

from flax_resnet.images.pixels import RGB
from train.data.class_counts import describe_counts
from train.data.loader import DataLoader
from train.data.source import DataSource
from train.engine.experiment import Experiment
from train.runtime.columns import cut
from train.runtime.formatting import format_percent, pluralize
from train.workdir import held_out

_MAX_NAME = 24  # columns of a class name


def data_lines(run: Experiment) -> list[tuple[str, str]]:
    """Return heads and texts of the lines about the data."""
    training, evaluated = run.train_loader, run.eval_loader
    lines = [
        ("data", _describe_data(run)),
        ("training", _describe_split(training)),
        ("evaluated", _describe_evaluated(run)),
    ]
    if training.source.has_cheap_labels:
        lines.append(("classes", f"{describe_counts(training.source)}, of the training images"))
    if evaluated.source.is_held_out:
        lines.append(("held out", _held_out(evaluated.source, run.config.dataset.fold)))
    if (weights := training.source.weights) is not None:
        low, mean, high = (f(weights) for f in (np.min, np.mean, np.max))
        text = f"of the images in the loss {low:.4g} to {high:.4g}, mean {mean:.4g}"
        lines.append(("weights", text))
    return lines


def _describe_data(run: Experiment) -> str:
    loader = run.train_loader
    size, pixels = "×".join(map(str, run.image_shape[:2])), loader.preprocessing.pixels
    form = f" with {pixels}" if pixels != RGB else ""
    sizes = ", ".join(map(str, loader.sizes.train_sizes))
    train_sizes = f" (training at {sizes})" if sizes else ""
    place = "in device memory" if loader.cached_on_device else "streamed"
    classes = len(loader.source.class_names)
    named = pluralize(classes, "class")
    return f"{loader.source.name}, {named}, images of {size}{train_sizes}{form}, {place}"


def _describe_split(loader: DataLoader) -> str:
    return f"{pluralize(len(loader), 'image')} of {loader.source.split!r}"


def _describe_evaluated(run: Experiment) -> str:
    """Return the evaluated part, and how often its largest class is right if always answered."""
    loader, source = run.eval_loader, run.eval_loader.source
    text = _describe_split(loader)
    if source.label_sets is not None or not source.has_cheap_labels:
        return text
    counts = source.class_counts()
    most = int(counts.argmax())
    share = format_percent(counts[most] / max(1, counts.sum()))
    return f"{text}; always answering {cut(source.class_names[most], _MAX_NAME)!r} gets {share}"


def _held_out(source: DataSource, fold: str) -> str:
    groups = "" if source.groups is None else f" of {pluralize(len({*source.groups}), 'group')}"
    part = f", fold {fold}" * bool(fold)
    return f"{pluralize(len(source), 'image')}{groups}{part}, listed in {held_out.FILE}"
