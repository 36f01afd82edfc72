"""Export of a run's network, verified in a separate process before the file is published."""

import dataclasses
import datetime
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.images.pixels import RGB
from flax_resnet.runs import Run
from flax_resnet.weights import WeightsError
from train.data.datasets import open_source
from train.data.splits import evaluation_split
from train.export import loaders, stablehlo
from train.export.calibrated import temperature_metadata, with_temperature_in_head
from train.export.formats import WRITERS
from train.export.hub import front_matter
from train.export.metadata import file_metadata
from train.export.model_card import model_card
from train.export.new_process import outputs_of
from train.export.output import HUB_FILE, card_name, file_names, for_hub, info_name
from train.export.outputs import exported_output
from train.export.own_preprocessing import OwnPreprocessing, own_preprocessing
from train.export.staging import staging_folder
from train.runtime.errors import RunError, UsageError
from train.runtime.files import ROOT, writing
from train.workdir import run_files

# Maximum difference: absolute for probabilities, relative to the largest for logits. Libraries sum
# in different orders.
TOLERANCES = {"probabilities": 1e-5, "logits": 1e-4}
TIMEOUT_SECONDS = 1200


def export(
    run: Run, format: str, output: str, raw: bool = False, int8: bool = False
) -> Iterator[str]:
    """Write ``output`` and its companion files, and yield progress lines.

    All files are written to a temporary folder beside ``output``, loaded there by a separate
    process with the code of the model card, and moved only if the outputs match the run's.

    Args:
      run: the run to export.
      format: a key of ``WRITERS`` whose library has the network, see :mod:`train.export.support`.
      output: path of the file, see :func:`train.export.output.check_output`.
      raw: for ONNX, write a network of normalized images that returns logits.
      int8: for ONNX, quantize the verified file.

    Yields:
      One line per step, for the console.

    Raises:
      RunError: the file cannot be written or loaded, or its outputs differ from the run's; in that
        case it is kept as ``output`` with the suffix ``.bad``, or ``.bad.2`` and so on.
    """
    # In float32 whatever the training precision: bfloat16 is too coarse to compare.
    run = dataclasses.replace(run, model=run.model.clone(dtype=jnp.float32, axis_name=None))
    written = with_temperature_in_head(run, format)
    folder, name = os.path.split(os.path.abspath(output))
    with staging_folder(output) as staging:
        with writing(output):
            try:
                writer = partial(WRITERS[format], raw=True) if raw else WRITERS[format]
                writer(written, os.path.join(staging, name))
            except WeightsError as error:
                raise RunError(f"cannot write {output!r}: {error}") from error
        yield f"wrote {name}, {os.path.getsize(os.path.join(staging, name)):,} bytes"
        if run.calibration is not None:
            yield f"calibrated: {run.calibration.description}"
        pictures, real = verification_pictures(run)
        returned = exported_output(run)
        images = returned.prepare(run, pictures)
        kind = "images of the evaluation split" if real else "random images (no data available)"
        card_loader = loaders.loader_for_format(written, format, raw)
        loader = loaders.importable_loader(written, card_loader)
        if loader.note:
            yield f"note: {loader.note}"
        differences = max_differences(written, loader, staging, name, images)
        result = (
            f"maximum difference of the {returned.name} {differences[returned.name]:.1e}"
            f"{returned.scale} in {len(images)} {kind}"
        )
        if not within_tolerance(differences):
            bad = unused_name(output + ".bad")
            os.replace(os.path.join(staging, name), bad)
            raise RunError(
                f"{output!r}: {result}, more than {TOLERANCES[returned.name]:g}; the file was"
                f" kept as {bad!r}"
            )
        yield f"verified with {loader.library} in a separate process: {result}"
        if int8:
            from train.export.onnx.quantization import quantize

            quantized = quantize(run, os.path.join(staging, name), raw)
            result += f" before the quantization; {quantized.describe()}"
            yield quantized.describe()
        verified = f"{result}, loaded with {loader.library}"
        own = own_preprocessing(written, format, name)
        if note := _missing_preprocessing(run, format, name):
            yield note
        if own and loader is card_loader:
            agreement = own_agreement(written, own, loader, staging, pictures, images)
            yield agreement
            verified += f"; {agreement}"
        with writing(output):
            about = stablehlo.lifetime(os.path.join(staging, name)) if format == "stablehlo" else {}
            about = {"date": datetime.date.today().isoformat()} | about
            metadata = file_metadata(run) | temperature_metadata(run, format, card_loader)
            metadata |= {"format": format, "files": file_names(format, name), "exported": about}
            text = json.dumps(metadata, indent=2, ensure_ascii=False)
            card = model_card(run, card_loader, format, name, verified, about)
            _write_text(staging, info_name(name), text)
            _write_text(staging, card_name(name), card)
            if for_hub(format, name):
                _write_text(staging, "README.md", front_matter(run, card_loader.library) + card)
            for file in file_names(format, name):
                os.replace(os.path.join(staging, file), os.path.join(folder, file))
        yield f"loading instructions: {os.path.join(folder, card_name(name))}"


def unused_name(path: str) -> str:
    """Return a path, with a number if there is such a file."""
    numbered = (f"{path}.{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))


def _missing_preprocessing(run: Run, format: str, name: str) -> str:
    """Return a note that the library of a format does not preprocess images as the run, or ""."""
    if format == "timm" and name != HUB_FILE:
        return f"note: timm finds the run's preprocessing and the file only if it is {HUB_FILE}"
    if for_hub(format, name) and run.preprocessing.pixels != RGB:
        return (
            f"note: {format} reads images as RGB of 8 bits, so it cannot classify image files of"
            f" {run.preprocessing.pixels}"
        )
    return ""


def within_tolerance(differences: dict[str, float]) -> bool:
    """Return whether all differences are rounding errors; False for NaN."""
    return all(value <= TOLERANCES[name] for name, value in differences.items())


def max_differences(
    run: Run, loader: loaders.Loader, folder: str, name: str, images: np.ndarray
) -> dict[str, float]:
    """Return the maximum differences between the outputs of an exported file and the run's.

    Args:
      run: the run.
      loader: code that loads ``folder/name``, executed in a new process.
      folder: directory of the file.
      name: name of the file.
      images: ``(N, H, W, C)``, prepared.

    Returns:
      By name what the loader computes: ``probabilities`` (absolute) and ``logits`` (relative).

    Raises:
      RunError: the file cannot be loaded or has outputs of another shape.
    """
    logits = jax.jit(run.model.apply)(run.variables, run.preprocessing.normalize(images))
    output = exported_output(run)
    expected = {"logits": logits, output.name: output.compute(run, logits)}
    differences: dict[str, float] = {}
    # A batch of several images, and one of a single image.
    for part in (slice(0, -1), slice(-1, None)):
        if not len(images[part]):
            continue
        np.save(os.path.join(folder, "images.npy"), images[part])
        for kind, values in _outputs_in_subprocess(loader, folder, name).items():
            reference = np.asarray(expected[kind][part])
            if values.shape != reference.shape:
                raise RunError(
                    f"{name} returns {kind} of shape {values.shape} instead of {reference.shape}"
                )
            scale = 1.0 if kind == "probabilities" else max(1.0, float(abs(reference).max()))
            # Not max(), which may ignore NaN.
            difference = abs(values - reference).max() / scale
            differences[kind] = float(np.max([differences.get(kind, 0.0), difference]))
    return differences


def own_agreement(
    run: Run,
    own: OwnPreprocessing,
    loader: loaders.Loader,
    folder: str,
    pictures: Sequence[np.ndarray],
    images: np.ndarray,
) -> str:
    """Return how far a library's own preprocessing of pictures gives the run's probabilities.

    Args:
      run: the run.
      own: the library's code, executed in a new process.
      loader: of the same library.
      folder: directory of the exported file.
      pictures: uint8 RGB, of any size.
      images: the pictures as the run prepares them.
    """
    logits = jax.jit(run.model.apply)(run.variables, run.preprocessing.normalize(images))
    expected = np.asarray(run.probabilities(logits))
    np.savez(os.path.join(folder, "pictures.npz"), *pictures)
    read = (
        "from PIL import Image\n"
        'pictures = [Image.fromarray(one) for one in np.load("pictures.npz").values()]'
    )
    code = "\n".join([own.setup, read, own.probabilities])
    found = _run_code(loader, code, folder, "the folder")["probabilities"]
    same = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    return (
        f"with the preprocessing of {loader.library}: the run's top-1 in {same} of {len(found)},"
        f" maximum difference of the probabilities {abs(found - expected).max():.1e}"
    )


def _outputs_in_subprocess(loader: loaders.Loader, folder: str, name: str) -> dict[str, np.ndarray]:
    """Return the outputs for ``images.npy`` that a new process computes."""
    code = loader.code(name, 'images = np.load("images.npy")')
    return _run_code(loader, code, folder, name)


def _run_code(loader: loaders.Loader, code: str, folder: str, name: str) -> dict[str, np.ndarray]:
    """Return the outputs that code of a loader's library computes in a new process."""
    script = "\n".join(
        [
            "import numpy as np",
            code,
            "import sys",
            *(f"assert {module!r} not in sys.modules" for module in loader.without),
            'outputs = {name: globals().get(name) for name in ("probabilities", "logits")}',
            "outputs = {key: value for key, value in outputs.items() if value is not None}",
            'np.savez("outputs.npz", **{key: np.asarray(value) for key, value in outputs.items()})',
        ]
    )
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [os.path.abspath(path) for path in given if path]  # "" would mean the new process's cwd
    if not loader.without:
        paths.append(str(ROOT))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
    _, outputs = outputs_of(
        ["-c", script],
        folder,
        TIMEOUT_SECONDS,
        f"verifying {name} with {loader.library}",
        f"{name} cannot be loaded with {loader.library}",
        env,
    )
    return outputs


def verification_pictures(run: Run) -> tuple[list[np.ndarray], bool]:
    """Return a few different images, spread over the run's evaluation split.

    Returns:
      images ``(H, W, C)`` of any size, not prepared, and whether they are real; random ones if the
      data are not available on this machine.
    """
    try:
        dataset = run_files.read_config(run.path).dataset
        source = open_source(dataset, evaluation_split(dataset))
    except (RunError, UsageError):
        return _random_images(run), False
    images, count = [], exported_output(run).max_images(run)
    for index in np.unique(np.linspace(0, len(source) - 1, 4 * count).astype(int)):
        try:
            image, _ = source.decode(int(index), pixels=run.preprocessing.pixels)
            images.append(image)
        except ImageDecodeError:
            continue
    if not images:
        return _random_images(run), False
    chosen = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    return [images[i] for i in chosen], True


def _random_images(run: Run) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    form = run.preprocessing.pixels
    shape = (exported_output(run).max_images(run), 64, 64, form.channels)
    return list(rng.integers(0, form.max_value + 1, shape, form.dtype))


def _write_text(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text + "\n")
