"""The model card of an exported network, in Markdown: what it is, and how to load it."""

from __future__ import annotations

import html
import os
import re
from typing import Any

from flax_resnet import summarize
from flax_resnet.runs import Run
from train.config.keys import KEYS
from train.export.loaders import Loader
from train.workdir import environment, run_files
from train.workdir.metrics_log import read_rows

_MOST_CLASSES = 50


def model_card(run: Run, loader: Loader, format: str, name: str, checked: str) -> str:
    """The text that goes beside the exported file ``name``.

    ``checked`` says what came of comparing the file with the run. Raises RunError where
    ``run.json`` is damaged.
    """
    size = run.preprocessing.image_size
    summary = summarize(run.model, size)
    described = run_files.read_description(run.path)
    called = os.path.basename(os.path.abspath(run.path))  # whatever it ends in
    return "\n".join(
        [
            f"# {run.config['model.name']}, {len(run.class_names)} classes",
            "",
            f"`{name}` ({format}) is the network of the run `{called}` after"
            f" step {run.step:,}{_weights(run)}. Made with flax-resnet."
            f" Compared with the run: {checked}.",
            "",
            "## Network",
            "",
            f"- {summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds for an"
            f" image of {size}×{size}",
            "- takes RGB images of that size, and gives"
            f" {'a probability' if _softmax(run) else 'the probability of each class for itself'}"
            f" of {run.model.num_classes} classes",
            "",
            "## Data",
            "",
            f"- `{run.config['dataset.name']}`, "
            + ", ".join(f"{n:,} images in {split}" for split, n in described["images"].items()),
            f"- classes: {_classes(run)}; all in `{name}.json`, in the order of the outputs",
            "",
            "## Metrics",
            "",
            *_metrics(run),
            "",
            "## Preprocessing",
            "",
            f"Resize the shorter side to {run.preprocessing.resize} pixels"
            f" ({run.preprocessing.interpolation}, antialiased), cut the middle {size}×{size}. Then"
            f" `(pixels / 255 - mean) / std` with mean {_numbers(run.preprocessing.mean)} and std"
            f" {_numbers(run.preprocessing.std)}"
            + (": the file does that itself, and takes uint8." if format == "stablehlo" else "."),
            "",
            "## Load it",
            "",
            f"With {loader.library}, Pillow and NumPy, in the folder of this file:",
            "",
            "```python",
            snippet(run, loader, name).rstrip(),
            "```",
            "",
            "## Recipe",
            "",
            *_recipe(run),
            "",
            "## Versions",
            "",
            f"- trained with {_versions(described.get('versions', {}))}",
            f"- exported with {_versions(environment.versions())}",
        ]
    )


def snippet(run: Run, loader: Loader, name: str) -> str:
    """Python that says what ``picture.jpg`` shows, from the exported file alone."""
    given = run.preprocessing
    return f'''\
import json

import numpy as np
from PIL import Image, ImageOps


def prepare(path):
    """The square of a picture that the network takes, uint8 ({given.image_size}, \
{given.image_size}, 3)."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):  # which convert would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    width, height = (int({given.resize} * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.{given.interpolation.upper()})
    left, top = round((width - {given.image_size}) / 2), round((height - {given.image_size}) / 2)
    return np.asarray(image.crop((left, top, left + {given.image_size}, \
top + {given.image_size})))


{loader.code(name, 'images = np.stack([prepare("picture.jpg")])')}
with open({f"{name}.json"!r}, encoding="utf-8") as file:
    names = json.load(file)["class_names"]
for row in np.asarray(probabilities):
    print(names[row.argmax()], row.max())
'''


def _weights(run: Run) -> str:
    if not run.config.get("ema.decay"):
        return ""
    return ", the moving average of the weights" if run.weights == "ema" else ", the raw weights"


def _softmax(run: Run) -> bool:
    return run.config.get("loss") != "binary_cross_entropy"


def _classes(run: Run) -> str:
    names = [_markdown(name) for name in run.class_names[:_MOST_CLASSES]]
    more = len(run.class_names) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _markdown(name: str) -> str:
    """A name as Markdown that shows it and means nothing else."""
    escaped = html.escape(" ".join(name.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", escaped)


def _metrics(run: Run) -> list[str]:
    """The evaluation of the exported weights, as the run wrote it down."""
    evaluated = (
        "ema" if run.config.get("ema.decay") and run.config.get("eval.use_ema", True) else "raw"
    )
    if run.weights != evaluated:
        return ["These weights were not evaluated in the run."]
    rows = [row for row in read_rows(run.path) if row["step"] == run.step and "eval/top1" in row]
    if not rows:
        return ["This step was not evaluated in the run."]
    found = {name: value for name, value in rows[-1].items() if name.startswith("eval/")}
    told = [f"- {name.removeprefix('eval/')}: {_number(value)}" for name, value in found.items()]
    return [f"On the run's evaluation split, `{run.config['dataset.eval_split']}`:", "", *told]


def _number(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.4g}"


def _recipe(run: Run) -> list[str]:
    """The configuration's keys that are not at their defaults and change what is learned."""
    return [
        f"- `{name}`: `{value!r}`"
        for name, value in run.config.items()
        if name in KEYS and not KEYS[name].neutral and _plain(value) != _plain(KEYS[name].default)
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
