"""The initial weights of a run, from ``config.init_from``, and their preprocessing."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax_resnet import ResNet, init_variables
from flax_resnet.dense.on_backbone import HEADS
from flax_resnet.weights import SourcePreprocessing, WeightsError, find_preprocessing, read_weights
from flax_resnet.weights.naming.parts import split_part
from flax_resnet.weights.published import hub, torchvision_files
from flax_resnet.weights.published.source_preprocessing import differ, format_value
from flax_resnet.weights.run_info import read_run_info
from train.config.followed_keys import FOLLOWED, Unset, mark_unset
from train.runtime import distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError, note, print_line, warn
from train.runtime.formatting import join_names


@dataclass(frozen=True)
class InitialWeights:
    """The weights of ``config.init_from``.

    Attributes:
      path: the file or folder.
      preprocessing: what they were trained with; None: unknown, or not to be followed.
      fold_image_format: whether the stem takes the run's images, whatever the file's network took.
    """

    path: Path
    preprocessing: SourcePreprocessing | None = None
    fold_image_format: bool = False


def find_weights(config: ConfigDict) -> InitialWeights | None:
    """Return the weights of ``config.init_from``, downloaded if necessary; None if it is empty.

    Raises:
      RunError: they do not exist or are corrupt, or the hub cannot be reached.
    """
    if not config.init_from:
        return None
    path = _find_path(config)
    if config.init_preprocessing == "off":
        return InitialWeights(path)
    try:
        preprocessing = find_preprocessing(path, config.init_from)
    except WeightsError as error:
        raise _error(config, error) from error
    return InitialWeights(path, preprocessing, fold_image_format=True)


def follow_preprocessing(config: ConfigDict, weights: InitialWeights) -> None:
    """Give the keys that the user has not set the values of the weights, and print them.

    Keys that the user has set to something else are warned of, except for ``dataset.image_size``:
    a network takes any size.
    """
    found, dataset = weights.preprocessing, config.dataset
    config.init_followed = ()
    if config.init_preprocessing == "off":
        return
    if found is None:
        unset = [name for name in FOLLOWED if isinstance(dataset[name], Unset)]
        if unset:
            _note(
                f"how images were prepared for {config.init_from} is unknown; the defaults"
                f" of dataset.{join_names(unset)} may differ from it"
            )
        return
    warnings, notes, followed = list(found.contradictions), list(found.notes), []
    for name, value in found.values().items():
        if name in ("mean", "std") and len(value) not in (1, dataset.channels):
            if isinstance(dataset[name], Unset):
                notes.append(
                    f"dataset.{name} keeps its default: that of the weights is for {len(value)}"
                    f" channels, {format_value(value)}, and the images have {dataset.channels}"
                )
        elif isinstance(dataset[name], Unset):
            dataset[name] = mark_unset(value)
            followed.append(name)
        elif name != "image_size" and differ(dataset[name], value):
            warnings.append(
                f"dataset.{name} is {format_value(dataset[name])}, but the weights are of images"
                f" with {format_value(value)} ({found.source}); without that key it would follow"
                " them"
            )
    if followed:
        values = ", ".join(f"{name}={format_value(dataset[name])}" for name in followed)
        _print(f"preprocessing of {found.source}, for keys of dataset that are not set: {values}")
    config.init_followed = tuple(followed)
    for text in notes:
        _note(text)
    if distributed.is_primary():
        for warning in warnings:
            warn(warning)


def _note(text: str) -> None:
    if distributed.is_primary():
        note(text)


def _print(text: str) -> None:
    if distributed.is_primary():
        print_line(text)


def initial_variables(
    config: ConfigDict,
    model: ResNet,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...],
    weights: InitialWeights | None = None,
) -> dict[str, Any] | None:
    """Load the model's variables from ``config.init_from`` and print the report.

    The head is newly initialized, from ``config.seed``, if the weights have another number of
    classes, if they are from a run with other classes than ``class_names``, or if
    ``config.init_head`` requires it.

    Args:
      config: the configuration.
      model: the network.
      image_shape: ``(H, W, C)`` of the images.
      class_names: of the data.
      weights: what :func:`find_weights` returned; default: found now, and read as they are.

    Returns:
      The variables, or None if ``config.init_from`` is empty.

    Raises:
      RunError: the weights do not exist, are corrupt or belong to another network.
      UsageError: ``config.init_head`` is ``"keep"``, but the head does not match.
    """
    source = config.init_from
    if not source:
        return None
    if weights is None:
        weights = InitialWeights(_find_path(config))
    try:
        variables, report = read_weights(
            model,
            weights.path,
            seed=config.seed,
            channels=image_shape[-1],
            fold_image_format=weights.fold_image_format,
        )
        info = read_run_info(split_part(weights.path)[0])
    except WeightsError as error:
        raise _error(config, error) from error
    initialized = [name for name, *_ in report.mismatched] + list(report.missing)
    if config.init_head == "keep" and any(name.split("/")[1] in HEADS for name in initialized):
        raise UsageError(
            f"config.init_head='keep', but {source!r} has no head with {model.num_classes} classes;"
            " 'auto' initializes a new one"
        )
    if distributed.is_primary():
        print(f"weights: {report}", flush=True)
    fresh = config.init_head == "fresh"
    if config.init_head == "auto":
        fresh = info is not None and info.class_names != tuple(class_names)
    if fresh and "head" in variables["params"]:
        initial = init_variables(model, config.seed, image_shape)
        for name, collection in variables.items():
            collection |= {head: initial[name][head] for head in HEADS if head in collection}
        _print("  the head is newly initialized")
    return variables


def _find_path(config: ConfigDict) -> Path:
    """Return the path of ``config.init_from``, downloaded if it is an id."""
    source = config.init_from
    path = Path(os.path.expanduser(source))
    file, _ = split_part(path)
    if file.exists():
        return path
    if hub.is_path(source):
        there = torchvision_files.folder() / file.name
        hint = f"; torchvision has it: --config.init_from={there}" if there.is_file() else ""
        raise RunError(f"config.init_from: there is no file or folder {source!r}{hint}")
    try:
        return hub.download(source)
    except hub.UnreachableError as error:
        raise RunError(
            f"config.init_from={source!r} is no file, and {error.problem}, or use a file:"
            f" --config.init_from=FILE; {_local_files(config.model.name)}"
        ) from error
    except WeightsError as error:
        problem = f"there is no such file or folder; as a hub id: {error}"
        raise _error(config, problem) from error


def _local_files(model: str) -> str:
    """Return where torchvision keeps its files, with the latest of the network if there is one."""
    files = [w.local_file for w in torchvision_files.PUBLISHED if w.model == model]
    present = [file for file in files if file.is_file()]
    folder = f"torchvision keeps its files in {torchvision_files.folder()}"
    return f"{folder}, such as {present[-1].name}" if present else folder


def _error(config: ConfigDict, problem: object) -> RunError:
    return RunError(f"config.init_from={config.init_from!r}: {problem}")
