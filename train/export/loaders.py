"""How an exported file is loaded: the code that the model card shows, and that checks the file."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flax_resnet import create_model
from flax_resnet.resnet import ResNet
from flax_resnet.runs import Run
from train.export.formats import is_transformers

_TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)
_TIMM = (*_TORCHVISION, "seresnet50", "resnet50d", "resnet101d", "resnet50_gn")
_IMPORTS = {
    "torchvision": ("torchvision", "safetensors.torch"),
    "timm": ("timm", "safetensors.torch"),
    "transformers": ("transformers.models.resnet.modeling_resnet",),
}
# What tells nothing of evaluation in float32.
_OF_TRAINING = ("num_classes", "dtype", "axis_name", "frozen", "zero_init_last", "drop_path")
_OF_TRAINING += ("dropout", "block_dropout", "norm_momentum", "parent", "name")


@dataclasses.dataclass(frozen=True)
class Loader:
    """Python that loads a file and gives ``probabilities``, and some ``logits``, of ``images``.

    Attributes:
      library: what it needs.
      code: ``(file's name, the line that makes images) -> Python``.
      imports: modules that may not be there.
      without: modules that it must do without.
      note: why it is not the library that the format is for.
    """

    library: str
    code: Callable[[str, str], str]
    imports: tuple[str, ...] = ()
    without: tuple[str, ...] = ("flax",)
    note: str = ""


def for_format(run: Run, format: str) -> Loader:
    """The loader for what a run's network was written as, to be shown to people."""
    if format == "stablehlo":
        return Loader("jax and flatbuffers", _stablehlo)
    library = {"huggingface": "transformers"}.get(format, format)
    name = run.config["model.name"]
    if format == "huggingface":
        shared = is_transformers(run.model)
    else:
        names = _TORCHVISION if format == "torchvision" else _TIMM
        shared = name in names and not changed_fields(run.model, name)
    if not shared:
        return _own(run, f"{library} has no such network: in the model card flax_resnet loads it")
    imports = ("torch", *_IMPORTS[library])
    return Loader(library, lambda file, images: _torch(run, library, file, images), imports)


def usable(run: Run, loader: Loader) -> Loader:
    """The loader itself, or this project's own where its library cannot be imported here."""
    reason = _unusable(loader.imports)
    if not reason:
        return loader
    return _own(run, f"not checked with {loader.library}, which cannot be imported here: {reason}")


def _own(run: Run, note: str) -> Loader:
    return Loader("flax_resnet", lambda file, images: _ours(run, file, images), (), (), note)


def _unusable(imports: Sequence[str]) -> str:
    """Why these cannot be imported, or ""; tried in another process, since they are large."""
    for name in imports:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            return f"there is no {name.partition('.')[0]}"
    if not imports:
        return ""
    command = [sys.executable, "-c", f"import {', '.join(imports)}"]
    process = subprocess.run(command, capture_output=True, text=True)
    if not process.returncode:
        return ""
    return (process.stderr.strip().splitlines() or ["it ends at once"])[-1]


def changed_fields(model: ResNet, name: str) -> dict[str, Any]:
    """The fields that the network has otherwise than the named one, as far as they matter."""
    named = create_model(name)
    return {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(ResNet)
        if field.name not in _OF_TRAINING
        and getattr(model, field.name) != getattr(named, field.name)
    }


def _stablehlo(file: str, images: str) -> str:
    return f"""\
from jax import export

with open({file!r}, "rb") as file:
    predict = export.deserialize(bytearray(file.read())).call

{images}
probabilities = predict(images)
"""


def _torch(run: Run, library: str, file: str, images: str) -> str:
    name, classes = run.config["model.name"], run.model.num_classes
    load = [f"net.load_state_dict(load_file({file!r}))"]
    if library == "transformers":
        imports = "from transformers import ResNetForImageClassification"
        make, load, call = 'ResNetForImageClassification.from_pretrained(".")', [], ".logits"
    else:
        imports, call = f"import {library}\nfrom safetensors.torch import load_file", ""
        make = (
            f"torchvision.models.{name}(num_classes={classes})"
            if library == "torchvision"
            else f'timm.create_model("{name}", num_classes={classes})'
        )
    squash = "sigmoid(logits)" if _is_binary(run) else "softmax(logits, dim=1)"
    lines = [
        "import torch",
        imports,
        "",
        f"net = {make}.eval()",
        *load,
        f"mean = torch.tensor({list(run.preprocessing.mean)})[:, None, None]",
        f"std = torch.tensor({list(run.preprocessing.std)})[:, None, None]",
        "",
        images,
        "pixels = torch.tensor(images).permute(0, 3, 1, 2) / 255",
        "with torch.no_grad():",
        f"    logits = net((pixels - mean) / std){call}",
        f"probabilities = torch.{squash}",
    ]
    return "\n".join(lines) + "\n"


def _ours(run: Run, file: str, images: str) -> str:
    name = run.config["model.name"]
    fields = {"num_classes": run.model.num_classes} | changed_fields(run.model, name)
    given = ", ".join(f"{field}={value!r}" for field, value in fields.items())
    squash = "sigmoid" if _is_binary(run) else "softmax"
    return f"""\
import jax
from flax_resnet import create_model, load_weights
from flax_resnet.preprocessing import normalize

model = create_model("{name}", {given})
variables = load_weights(model, {file!r})

{images}
pixels = normalize(images, {run.preprocessing.mean}, {run.preprocessing.std})
logits = jax.jit(model.apply)(variables, pixels)
probabilities = jax.nn.{squash}(logits)
"""


def _is_binary(run: Run) -> bool:
    return run.config.get("loss") == "binary_cross_entropy"
