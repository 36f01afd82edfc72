"""Names of an export's files, and which existing files it may replace."""

import json
import os
from importlib.util import find_spec
from typing import Any

from train.runtime.errors import UsageError
from train.runtime.files import check_writable

_WEIGHTS = ("torchvision", "timm", "huggingface")
HUB_FILE = "model.safetensors"  # where transformers and timm look for weights in a folder


def file_names(format: str, name: str) -> tuple[str, ...]:
    """Return the names of all files of an export.

    The exported file is the last, so that it never lacks its companions.
    """
    return (*_library_files(format, name), card_name(name), info_name(name), name)


def card_name(name: str) -> str:
    """Return the name of the model card of an exported file."""
    return f"{name}.model_card.md"


def info_name(name: str) -> str:
    """Return the name of the JSON file of an exported file."""
    return f"{name}.json"


def for_hub(format: str, name: str) -> bool:
    """Return whether an export's folder can be loaded as a whole, and be a hub's repository."""
    return format in ("huggingface", "timm") and name == HUB_FILE


def _library_files(format: str, name: str) -> tuple[str, ...]:
    if not for_hub(format, name):
        return ()
    processor = ("preprocessor_config.json",) if format == "huggingface" else ()
    return ("README.md", "config.json", *processor)


def check_output(format: str, output: str) -> None:
    """Check that ``output`` is a valid file name for the format, and that nothing else is lost.

    Existing files are replaced only if they are those of an earlier export under the same name
    and in the same format.

    Raises:
      UsageError: the name is not valid, or one of the files exists and is not to be replaced.
      RunError: the folder cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(output))
    if format == "onnx":
        if not name.endswith(".onnx"):
            raise UsageError(f"--output of onnx must end in .onnx, not be {output!r}")
        if missing := [each for each in ("onnx", "onnxruntime") if find_spec(each) is None]:
            raise UsageError(
                f"--format onnx needs {' and '.join(missing)}: pip install 'flax-resnet[onnx]'"
            )
    if format in _WEIGHTS and not name.endswith(".safetensors"):
        raise UsageError(f"--output of {format} must end in .safetensors, not be {output!r}")
    if format == "huggingface" and name != HUB_FILE:
        raise UsageError(
            f"--output of huggingface must be {HUB_FILE} in a folder of its own, beside its"
            f" config.json, not {output!r}"
        )
    if os.path.isdir(output):
        raise UsageError(f"--output is a folder, {output!r}; name a file in it")
    earlier = read_info(folder, name)
    replaced = earlier["files"] if earlier.get("format") == format else ()
    for file in file_names(format, name):
        if os.path.lexists(os.path.join(folder, file)) and file not in replaced:
            raise UsageError(
                f"--output {output!r} would overwrite {os.path.join(folder, file)!r}, which is not"
                f" of an earlier {format} export of this name; choose another name or folder"
            )
    check_writable(folder, repr(output))


def read_info(folder: str, name: str) -> dict[str, Any]:
    """Return the JSON file of an earlier export, or ``{}`` if there is none."""
    try:
        with open(os.path.join(folder, info_name(name)), encoding="utf-8") as file:
            info = json.load(file)
        return info if isinstance(info, dict) and isinstance(info.get("files"), list) else {}
    except (OSError, ValueError):
        return {}
