"""Code that loads an exported file, for the model card and for the verification."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

from flax_resnet.runs import Run
from flax_resnet.text import truncate
from train.export.output import info_name
from train.export.outputs import exported_output
from train.export.support import changed_fields

_IMPORTS = {
    "torchvision": ("torchvision", "safetensors.torch"),
    "timm": ("timm", "safetensors.torch"),
    "transformers": ("transformers.models.resnet.modeling_resnet",),
}


@dataclasses.dataclass(frozen=True)
class Loader:
    """Python code that loads a file and computes ``probabilities`` of ``images``.

    Some also define ``logits``; those of segmentation only these.

    Attributes:
      library: libraries that the code requires.
      code: ``(file name, line that defines images) -> Python``.
      imports: modules that may not be installed.
      without: modules that the code must not import.
      note: why it does not use the library that the format is intended for.
      normalizes: whether the file, and not the code, normalizes the images and applies the
        temperature.
    """

    library: str
    code: Callable[[str, str], str]
    imports: tuple[str, ...] = ()
    without: tuple[str, ...] = ("flax",)
    note: str = ""
    normalizes: bool = False


def loader_for_format(run: Run, format: str, raw: bool = False) -> Loader:
    """Return the loader for a format, as the model card shows it; ``raw`` is for ONNX only."""
    if format == "stablehlo":
        code = partial(_stablehlo_code, exported_output(run).name)
        return Loader("jax and flatbuffers", code, normalizes=True)
    if format == "onnx":
        code = partial(_onnx_code, exported_output(run).name)
        code = partial(_raw_onnx_code, run) if raw else code
        return Loader("onnxruntime", code, without=("flax", "jax"), normalizes=not raw)
    library = {"huggingface": "transformers"}.get(format, format)
    imports = ("torch", *_IMPORTS[library])
    return Loader(library, lambda file, images: _torch_code(run, library, file, images), imports)


def importable_loader(run: Run, loader: Loader) -> Loader:
    """Return ``loader``, or flax_resnet's own if its library cannot be imported here."""
    reason = _import_error(loader.imports)
    if not reason:
        return loader
    note = f"not verified with {loader.library}, which cannot be imported here: {reason}"
    return _flax_resnet_loader(run, note)


def _flax_resnet_loader(run: Run, note: str) -> Loader:
    def code(file: str, images: str) -> str:
        return _flax_resnet_code(run, file, images)

    return Loader("flax_resnet", code, (), (), note)


def _import_error(imports: Sequence[str]) -> str:
    """Return why modules cannot be imported, or ""; in a subprocess, since they are large."""
    if not imports:
        return ""
    command = [sys.executable, "-c", f"import {', '.join(imports)}"]
    process = subprocess.run(command, capture_output=True, text=True)
    if not process.returncode:
        return ""
    return truncate((process.stderr.strip().splitlines() or ["no error message"])[-1], 300)


def _stablehlo_code(output: str, file: str, images: str) -> str:
    return f"""\
from jax import export

with open({file!r}, "rb") as file:
    predict = export.deserialize(bytearray(file.read())).call

{images}
{output} = predict(images)
"""


def _onnx_code(output: str, file: str, images: str) -> str:
    return f"""\
import onnxruntime

session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])

{images}
[{output}] = session.run(None, {{"images": images}})
"""


def _raw_onnx_code(run: Run, file: str, images: str) -> str:
    activation = "1 / (1 + np.exp(-scaled))"
    if not is_binary(run):
        activation = "np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))"
    probabilities = f"scaled = {scaled_logits(run)}\nprobabilities = {activation}\n"
    if exported_output(run).of_pixels:
        probabilities = ""
    return f"""\
import onnxruntime

session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
mean = np.array({list(run.preprocessing.mean)}, np.float32)
std = np.array({list(run.preprocessing.std)}, np.float32)

{images}
normalized = (images / np.float32({run.preprocessing.pixels.max_value}) - mean) / std
[logits] = session.run(None, {{"images": normalized}})
{probabilities}"""


def _torch_code(run: Run, library: str, file: str, images: str) -> str:
    largest = run.preprocessing.pixels.max_value
    as_floats = ".astype('float32')" * (largest > 255)  # PyTorch computes little with uint16
    imports, make, call = _torch_network(run, library)
    scaled = scaled_logits(run)
    activation = f"sigmoid({scaled})" if is_binary(run) else f"softmax({scaled}, dim=1)"
    lines = [
        "import torch",
        imports,
        "",
        f"net = {make}.eval()",
        # from_pretrained() of transformers has loaded them.
        *[f"net.load_state_dict(load_file({file!r}))"] * (library != "transformers"),
        f"mean = torch.tensor({list(run.preprocessing.mean)})[:, None, None]",
        f"std = torch.tensor({list(run.preprocessing.std)})[:, None, None]",
        "",
        images,
        f"pixels = torch.tensor(images{as_floats}).permute(0, 3, 1, 2) / {largest}",
        "with torch.no_grad():",
        f"    logits = net((pixels - mean) / std){call}",
        *[f"probabilities = torch.{activation}"] * (not exported_output(run).of_pixels),
    ]
    return "\n".join(lines) + "\n"


def _torch_network(run: Run, library: str) -> tuple[str, str, str]:
    """Return code that imports a library, that makes the network, and that follows its call."""
    name, classes = run.config["model.name"], run.model.num_classes
    channels = run.preprocessing.pixels.channels
    if library == "transformers":
        imports = "from transformers import AutoModelForImageClassification"
        return imports, 'AutoModelForImageClassification.from_pretrained(".")', ".logits"
    imports = f"import {library}\nfrom safetensors.torch import load_file"
    if exported_output(run).of_pixels:
        fields = f"num_classes={classes}, aux_loss={bool(run.model.aux_head)}"
        make = f"{name}(weights=None, weights_backbone=None, {fields})"
        call = '["out"].permute(0, 2, 3, 1)  # as the images: (N, H, W, classes)'
        return imports, f"torchvision.models.segmentation.{make}", call
    if library == "torchvision":
        return imports, f"torchvision.models.{name}(num_classes={classes})", ""
    in_chans = f", in_chans={channels}" * (channels != 3)
    return imports, f'timm.create_model("{name}", num_classes={classes}{in_chans})', ""


def _flax_resnet_code(run: Run, file: str, images: str) -> str:
    name = run.config["model.name"]
    fields = {"num_classes": run.model.num_classes} | changed_fields(run.model, name)
    fields |= {"aux_head": True} if getattr(run.model, "aux_head", False) else {}
    arguments = ", ".join(f"{field}={value!r}" for field, value in fields.items())
    activation = "sigmoid" if is_binary(run) else "softmax"
    probabilities = f"probabilities = jax.nn.{activation}({scaled_logits(run)})\n"
    if exported_output(run).of_pixels:
        probabilities = ""
    return f"""\
import jax
from flax_resnet import create_model, load_weights
from flax_resnet.preprocessing import normalize

model = create_model("{name}", {arguments})
variables = load_weights(model, {file!r})

{images}
pixels = normalize(images, {run.preprocessing.mean}, {run.preprocessing.std})
logits = jax.jit(model.apply)(variables, pixels)
{probabilities}"""


def answer_code(run: Run, name: str) -> str:
    """Return Python code that prints the classes of images from their ``probabilities``."""
    return f"""\
with open({info_name(name)!r}, encoding="utf-8") as file:
{_SEVERAL_CLASSES if run.several_labels else _ONE_CLASS}"""


_ONE_CLASS = """\
    names = json.load(file)["class_names"]
for row in np.asarray(probabilities):
    print(names[row.argmax()], row.max())
"""
_SEVERAL_CLASSES = """\
    info = json.load(file)
thresholds = info.get("decision_thresholds", {})
for row in np.asarray(probabilities):
    probability = dict(zip(info["class_names"], row))
    print([name for name, p in probability.items() if p >= thresholds.get(name, 0.5)])
"""


def scaled_logits(run: Run) -> str:
    """Return Python code of the logits of the calibrated probabilities."""
    return "logits" if run.temperature is None else f"logits / {run.temperature!r}"


def is_binary(run: Run) -> bool:
    """Return whether the classes have independent probabilities (sigmoid)."""
    return run.activation == "sigmoid"
