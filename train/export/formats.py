"""Writers of the export formats."""

import json
import os
from functools import partial
from typing import Any

from flax_resnet import save_weights
from flax_resnet.runs import Run
from train.export import timm_files, transformers_files
from train.export.output import for_hub
from train.export.stablehlo import write_stablehlo


def write_onnx(run: Run, path: str, raw: bool = False) -> None:
    """Write the network as ONNX; see :func:`train.export.onnx.writing.write_onnx`."""
    from train.export.onnx import writing  # needs the extra onnx

    writing.write_onnx(run, path, raw)


def write_weights(run: Run, path: str, layout: str) -> None:
    """Write the weights in another library's layout; see :func:`flax_resnet.save_weights`."""
    save_weights(run.model, run.variables, path, layout=layout)


def write_huggingface(run: Run, path: str) -> None:
    """Write the weights, and the configurations of the network and its preprocessing."""
    write_weights(run, path, "huggingface")
    folder = os.path.dirname(path)
    _write_json(folder, "config.json", transformers_files.network_config(run))
    processor = transformers_files.processor_config(run.preprocessing)
    _write_json(folder, "preprocessor_config.json", processor)


def write_timm(run: Run, path: str) -> None:
    """Write the weights and, if timm finds the file in its folder, their configuration."""
    write_weights(run, path, "timm")
    folder, name = os.path.split(path)
    if for_hub("timm", name):
        _write_json(folder, "config.json", timm_files.network_config(run))


def _write_json(folder: str, name: str, content: dict[str, Any]) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")


WRITERS = {
    "stablehlo": write_stablehlo,
    "onnx": write_onnx,
    "torchvision": partial(write_weights, layout="torchvision"),
    "timm": write_timm,
    "huggingface": write_huggingface,
}
