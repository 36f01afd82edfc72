"""A run's network as a file for other programs, checked before it is there."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.runs import Run
from flax_resnet.weights import WeightsError
from train.data.datasets import open_source
from train.export import loaders
from train.export.formats import WRITERS
from train.export.model_card import model_card
from train.runtime.errors import RunError, UsageError
from train.runtime.files import ROOT, writing
from train.workdir import run_files

CARD = "model_card.md"
IMAGES = 8  # to check with, at most
# Of probabilities; of logits as a share of the largest: libraries order their sums differently.
MOST_OFF = {"probabilities": 1e-5, "logits": 1e-4}
_SECONDS = 1200


def check_output(format: str, output: str) -> None:
    """Raises UsageError or RunError where nothing could be written to ``output``."""
    folder, name = os.path.split(os.path.abspath(output))
    if format != "stablehlo" and not name.endswith(".safetensors"):
        raise UsageError(f"--output of {format} must end in .safetensors, not be {output!r}")
    if format == "huggingface" and name != "model.safetensors":
        raise UsageError(
            "--output of huggingface must be model.safetensors in a folder of its own, beside its"
            f" config.json, not {output!r}"
        )
    if os.path.isdir(output):
        raise UsageError(f"--output is a folder, {output!r}; name a file in it")
    if format == "huggingface" and os.path.exists(os.path.join(folder, "run.json")):
        raise UsageError(f"{folder!r} is a run's, with a config.json of its own; choose another")


def export(run: Run, format: str, output: str) -> Iterator[str]:
    """Writes ``output`` and what goes with it; yields what to tell, line by line.

    Everything is made in a folder beside it, loaded there by a process of its own as the model
    card says, and moved to its place when it gives what the run does. Raises RunError where it
    does not: then the file is ``output`` with ``.bad`` behind it.
    """
    # In float32, whatever it was trained in: what rounds coarsely cannot be compared.
    run = dataclasses.replace(run, model=run.model.clone(dtype=jnp.float32, axis_name=None))
    folder, name = os.path.split(os.path.abspath(output))
    with writing(output):
        os.makedirs(folder, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=f".{name}.", dir=folder)
    try:
        with writing(output):
            try:
                WRITERS[format](run, os.path.join(staging, name))
            except WeightsError as error:
                raise RunError(f"cannot write {output!r}: {error}") from error
        yield f"wrote {name}, {os.path.getsize(os.path.join(staging, name)):,} bytes"
        squares, real = real_squares(run)
        kind = "images of the evaluation split" if real else "drawn images: its data are not here"
        shown = loaders.for_format(run, format)
        loader = loaders.usable(run, shown)
        if loader.attach_metrics:
            yield f"note: {loader.attach_metrics}"
        off = difference(run, loader, staging, name, squares)
        checked = (
            f"probabilities differ by {off['probabilities']:.1e} at most in {len(squares)} {kind}"
        )
        if not within(off):
            bad = output + ".bad"
            os.replace(os.path.join(staging, name), bad)
            raise RunError(
                f"{output!r}: {checked}, which is more than {MOST_OFF['probabilities']:g}; it was"
                f" left as {bad!r}"
            )
        yield f"loaded it with {loader.library} in another process: {checked}"
        with writing(output):
            described = {
                "class_names": [run.class_name(i) for i in range(run.model.num_classes)],
                "preprocessing": dataclasses.asdict(run.preprocessing),
            }
            card = model_card(run, shown, format, name, f"{checked}, loaded with {loader.library}")
            _write(staging, f"{name}.json", json.dumps(described, indent=2, ensure_ascii=False))
            _write(staging, CARD, card)
            for made in sorted(os.listdir(staging), key=lambda made: made == name):
                if made in (name, f"{name}.json", CARD, "config.json"):
                    os.replace(os.path.join(staging, made), os.path.join(folder, made))
        yield f"{os.path.join(folder, CARD)} says how to load it"
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def within(off: dict[str, float]) -> bool:
    """Whether the differences are those of rounding; what is not a number is none."""
    return all(value <= MOST_OFF[name] for name, value in off.items())


def difference(
    run: Run, loader: loaders.Loader, folder: str, name: str, squares: np.ndarray
) -> dict[str, float]:
    """How far ``probabilities``, and ``logits`` where they are told, are from the run's at most.

    ``folder/name`` is loaded as ``loader`` says, by a process that has imported nothing else.
    Raises RunError where that fails.
    """
    logits = jax.jit(run.model.apply)(run.variables, run.preprocessing.normalize(squares))
    wanted = {"probabilities": run.probabilities(logits), "logits": logits}
    off: dict[str, float] = {}
    # Several together, and one alone.
    for part in (slice(0, -1), slice(-1, None)):
        if not len(squares[part]):
            continue
        np.save(os.path.join(folder, "images.npy"), squares[part])
        for what, found in _answers(loader, folder, name).items():
            reference = np.asarray(wanted[what][part])
            if found.shape != reference.shape:
                raise RunError(f"{name} gives {what} {found.shape} for {reference.shape}")
            scale = 1.0 if what == "probabilities" else max(1.0, float(abs(reference).max()))
            # Not max(), which may pass over what is not a number.
            off[what] = float(np.max([off.get(what, 0.0), abs(found - reference).max() / scale]))
    return off


def _answers(loader: loaders.Loader, folder: str, name: str) -> dict[str, np.ndarray]:
    """What a fresh process gives for ``images.npy``."""
    script = "\n".join(
        [
            "import numpy as np",
            loader.code(name, 'images = np.load("images.npy")'),
            "import sys",
            *(f"assert {module!r} not in sys.modules" for module in loader.without),
            'found = {"probabilities": probabilities}',
            'found |= {"logits": logits} if "logits" in globals() else {}',
            'np.savez("found.npz", **{key: np.asarray(value) for key, value in found.items()})',
        ]
    )
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [os.path.abspath(path) for path in given if path]  # "" would become this folder
    if not loader.without:
        paths.append(str(ROOT))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
    try:
        process = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RunError(
            f"{name} was not loaded and computed with {loader.library} within {_SECONDS} s"
        ) from None
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"{name} cannot be loaded with {loader.library}: {last}")
    with np.load(os.path.join(folder, "found.npz")) as found:
        return dict(found)


def real_squares(run: Run) -> tuple[np.ndarray, bool]:
    """The images to check with, uint8 ``(N, S, S, 3)``, and whether they are real.

    Each is another one, from all over the run's evaluation split, and where that has fewer than
    ``IMAGES`` they are all; drawn ones where its data are not here.
    """
    count = IMAGES
    try:
        dataset = run_files.read_config(run.path).dataset
        source = open_source(dataset, dataset.eval_split)
    except (RunError, UsageError):
        return _drawn(run, count), False
    pixels = []
    for index in np.unique(np.linspace(0, len(source) - 1, 4 * count).astype(int)):
        try:
            pixels.append(source.decode(int(index))[0])
        except ImageDecodeError:
            continue
    if not pixels:
        return _drawn(run, count), False
    chosen = np.unique(np.linspace(0, len(pixels) - 1, count).astype(int))
    return run.prepare([pixels[i] for i in chosen]), True


def _drawn(run: Run, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return run.prepare(list(rng.integers(0, 256, (count, 64, 64, 3), np.uint8)))


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text + "\n")
