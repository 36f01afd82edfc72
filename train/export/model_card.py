"""The model card of an exported network, in Markdown."""

import os
import re
from collections.abc import Mapping
from typing import Any

from flax_resnet import summarize
from flax_resnet.images.pixels import RGB
from flax_resnet.runs import Run
from flax_resnet.text import one_line
from train.config.keys import KEYS
from train.export.calibrated import temperature_place
from train.export.card_texts import CARD_TEXTS
from train.export.loaders import Loader
from train.export.output import info_name
from train.export.own_preprocessing import own_preprocessing
from train.export.stablehlo import describe_lifetime
from train.workdir import environment, run_files
from train.workdir.metrics_log import read_rows

_MAX_CLASSES = 50


def model_card(
    run: Run, loader: Loader, format: str, name: str, verified: str, exported: dict[str, Any]
) -> str:
    """Return the text of the model card.

    Args:
      run: the exported run.
      loader: code that loads the file.
      format: export format.
      name: name of the exported file.
      verified: result of the comparison with the run.
      exported: the ``date`` of the export, and for StableHLO the lifetime of the program.

    Raises:
      RunError: ``run.json`` is corrupt.
    """
    *sides, channels = run.preprocessing.shape
    size, form = "×".join(map(str, sides)), run.preprocessing.pixels
    texts = CARD_TEXTS[run.kind]
    in_file = loader.normalizes
    kind = "RGB images" if form == RGB else f"images with {form}"
    summary = summarize(run.model, tuple(sides), channels)
    info = run_files.read_description(run.path)
    run_name = os.path.basename(os.path.abspath(run.path))  # without a trailing slash
    return "\n".join(
        [
            f"# {run.config['model.name']}, {len(run.class_names)} classes",
            "",
            f"{_code(name)} ({format}) contains the network of run {_code(run_name)} after"
            f" step {run.step:,}{_weights(run)}. Exported with flax-resnet."
            f" Comparison with the run: {verified}.",
            "",
            "## Network",
            "",
            f"- {summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds per"
            f" image of {size} pixels",
            f"- input: {kind} of that size" + ("" if in_file else ", normalized as below"),
            f"- output: {texts.output(run, in_file)}",
            *_calibration(run, format, loader),
            "",
            "## Data",
            "",
            f"- {_code(run.config['dataset.name'])}, "
            + ", ".join(f"{n:,} images in {_code(split)}" for split, n in info.images.items()),
            f"- classes: {_classes(run)}; all in {_code(info_name(name))}, in the order of the"
            " outputs",
            *texts.data(run),
            "",
            "## Metrics",
            "",
            *_metrics(run, info.images),
            *texts.metrics(run),
            "",
            "## Preprocessing",
            "",
            f"{texts.place(run)}, then `(pixels / {form.max_value} - mean) / std` with mean"
            f" {_numbers(run.preprocessing.mean)} and std {_numbers(run.preprocessing.std)}"
            + (f": part of the exported file, which takes {form.dtype}." if in_file else ".")
            + f" {loader.library} reads it from the configuration of the folder."
            * (own_preprocessing(run, format, name) is not None),
            "",
            "## Load it",
            "",
            f"Requires {loader.library}, Pillow and NumPy; run it in the folder of this file:",
            "",
            "```python",
            snippet(run, loader, format, name).rstrip(),
            "```",
            *_lifetime(exported),
            "",
            "## Recipe",
            "",
            *_recipe(run),
            "",
            "## Versions",
            "",
            f"- trained with {_versions(info.versions)}",
            f"- exported on {exported['date']} with {_versions(environment.versions())}",
        ]
    )


def snippet(run: Run, loader: Loader, format: str, name: str) -> str:
    """Return Python code that classifies an image, or its pixels, with the exported file."""
    if own := own_preprocessing(run, format, name):
        return own.setup + "\n" + own.answer
    pixels, texts = run.preprocessing.pixels, CARD_TEXTS[run.kind]
    prepare, images = texts.prepare(run) if pixels == RGB else ("", "")
    if pixels != RGB:
        shape = ", ".join(map(str, run.preprocessing.shape))
        images = f'images = np.load("images.npy")  # {pixels.dtype} (N, {shape}), prepared'
    return f"""\
import json

import numpy as np
{prepare}
{loader.code(name, images)}
{texts.answer(run, name)}"""


def _weights(run: Run) -> str:
    if not run.config.get("ema.decay"):
        return ""
    return ", the moving average of the weights" if run.weights == "ema" else ", the raw weights"


def _calibration(run: Run, format: str, loader: Loader) -> list[str]:
    """Return the temperature, where it is applied, and the thresholds of decisions."""
    if run.calibration is None:
        return []
    lines = []
    if run.temperature is not None:
        lines.append(
            f"- calibrated: {_code(run.calibration.description)};"
            f" {temperature_place(format, loader)}"
        )
    lines += [
        f"- {'label' if run.several_labels else 'decide'} {_code(name)} from a probability of"
        f" {one.threshold:.4g}" + (f" (for {_code(one.target)})" if one.target else "")
        for name, one in run.calibration.decisions.items()
    ]
    return lines


def _lifetime(exported: dict[str, Any]) -> list[str]:
    if "jax" not in exported:
        return []
    return ["", "## Lifetime", "", describe_lifetime(exported)]


def _classes(run: Run) -> str:
    names = [_code(name) for name in run.class_names[:_MAX_CLASSES]]
    more = len(run.class_names) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _code(value: object) -> str:
    """Return text as Markdown's code, in which markup, HTML and addresses have no effect."""
    text = one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # Markdown removes one space from both ends, if both have one and there is other text.
    space = " " * ("`" in text or not text or text[0] == text[-1] == " ")
    return f"{fence}{space}{text}{space}{fence}"


def evaluation(run: Run) -> dict[str, float | None]:
    """Return the logged metrics of the exported weights and step, empty if there are none."""
    evaluated = (
        "ema" if run.config.get("ema.decay") and run.config.get("eval.use_ema", True) else "raw"
    )
    if run.weights != evaluated:
        return {}
    metrics: dict[str, float | None] = {}
    for row in read_rows(run.path):
        logged = {name: value for name, value in row.items() if name.startswith("eval/")}
        if row["step"] == run.step and logged:
            metrics = {name.removeprefix("eval/"): value for name, value in logged.items()}
    return metrics


def _metrics(run: Run, images: Mapping[str, int]) -> list[str]:
    """Return the logged evaluation of the exported weights on the last split of ``images``."""
    metrics = evaluation(run)
    if not metrics:
        return ["The run did not evaluate these weights at this step."]
    where = "".join(f", {_code(split)}" for split in [*images][-1:])
    lines = [f"- {name}: {_number(value)}" for name, value in metrics.items()]
    return [f"On the evaluation split{where}:", "", *lines]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _recipe(run: Run) -> list[str]:
    """Return the configuration keys that affect training and differ from their defaults."""
    return [
        f"- `{name}`: {_code(repr(value))}"
        for name, value in run.config.items()
        if name in KEYS
        and not KEYS[name].neutral
        and _as_list(value) != _as_list(KEYS[name].default)
    ]


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(_code(f"{name} {version}") for name, version in versions.items())
