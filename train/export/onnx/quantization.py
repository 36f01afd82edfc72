"""Quantization of an exported ONNX file to int8, and what it costs and gains.

ONNX Runtime's own tool measures the range of every map on images of the run's training split and
adds pairs of QuantizeLinear and DequantizeLinear, which runtimes fuse with the operation between.
"""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.runs import Run
from train.data.datasets import open_source
from train.data.splits import evaluation_split
from train.export.new_process import outputs_of
from train.export.onnx import measurement
from train.export.onnx.scoring import scoring
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import pluralize
from train.workdir import run_files

CALIBRATION_IMAGES, EVALUATED_IMAGES = 256, 1000
MAX_LOSS = 0.05  # of accuracy: a file that loses more is not worth having
# Softmax, sigmoid and the statistics of group norm are left in float32: they cost little.
QUANTIZED = ("Add", "AveragePool", "Concat", "Conv", "Gemm", "MatMul", "MaxPool", "Mul", "Pad")
QUANTIZED += ("Relu", "Reshape", "Slice", "Transpose")
TIMEOUT_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class QuantizationResult:
    """What the quantization costs and gains, as measured.

    Attributes:
      metric: ``"top1"``, ``"map"``, the mean average precision, or ``"miou"``.
      float32, int8: the metric of both files.
      images: number of images of the evaluation split.
      seconds: of both files for a batch, ``{"float32": …, "int8": …}``.
      batch_size: of these.
      threads: of ONNX Runtime.
      bytes: sizes of both files.
    """

    metric: str
    float32: float
    int8: float
    images: int
    seconds: dict[str, float]
    batch_size: int
    threads: int
    bytes: dict[str, int]

    @property
    def loss(self) -> float:
        """How much of the metric the quantization loses."""
        return self.float32 - self.int8

    def describe(self) -> str:
        """Return the result as one line."""
        times = {name: 1000 * seconds for name, seconds in self.seconds.items()}
        return (
            f"int8: {self.metric} {self.int8:.4f} against {self.float32:.4f} in float32 on"
            f" {pluralize(self.images, 'image')} of the evaluation split;"
            f" {times['float32'] / times['int8']:.2f} times as fast here"
            f" ({times['int8']:.3g} against {times['float32']:.3g} ms for {self.batch_size} images,"
            f" {pluralize(self.threads, 'thread')});"
            f" {self.bytes['int8']:,} bytes instead of {self.bytes['float32']:,}"
        )


def quantize(run: Run, path: str, raw: bool) -> QuantizationResult:
    """Replace an exported file by its quantized form, and compare the two.

    Args:
      run: the run.
      path: the file, in a folder for temporary files.
      raw: whether it takes normalized images.

    Raises:
      RunError: there are no images, or the quantized network is much less accurate.
    """
    folder, name = os.path.split(path)
    dataset = run_files.read_config(run.path).dataset
    calibration, _ = sample(run, dataset, dataset.train_split, CALIBRATION_IMAGES)
    quantized = os.path.join(folder, f"int8.{name}")
    batch_size = scoring(run).batch_size(run)
    write_quantized(path, quantized, network_input(run, calibration, raw), batch_size)
    images, labels = sample(run, dataset, evaluation_split(dataset), EVALUATED_IMAGES)
    files = name, os.path.basename(quantized)
    settings = str(batch_size), scoring(run).outputs
    measured = _measure(folder, (*files, *settings), network_input(run, images, raw))
    scores = {
        kind: scoring(run).score(run, outputs, labels, raw)
        for kind, outputs in measured["outputs"].items()
    }
    result = QuantizationResult(
        scoring(run).metric(run),
        **scores,
        images=len(images),
        seconds=measured["seconds"],
        batch_size=measured["batch_size"],
        threads=measured["threads"],
        bytes={"float32": os.path.getsize(path), "int8": os.path.getsize(quantized)},
    )
    if np.isnan(result.float32):
        raise RunError(
            "--int8 needs labels to measure what it costs, and no image of the evaluation split"
            " has one"
        )
    if not result.loss <= MAX_LOSS:
        raise RunError(f"more than {100 * MAX_LOSS:g} points are lost; {result.describe()}")
    os.replace(quantized, path)
    return result


def sample(run: Run, dataset: Any, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to ``count`` images of a split, evenly spread, and their labels.

    Returns:
      images ``(N, H, W, C)``, prepared, and labels ``(N,)``, ``(N, K)`` for several classes per
      image, or ``(N, H, W)`` for segmentation. Unreadable images are left out.

    Raises:
      RunError: there are no data, or no image can be read.
    """
    try:
        source = open_source(dataset, split)
    except (RunError, UsageError) as error:
        problem, _, _ = str(error).partition("; ")  # the advice is on keys of a configuration
        raise RunError(f"--int8 needs images of the run's split {split!r}: {problem}") from error
    images, labels = [], []
    count = min(count, scoring(run).max_images(run))
    for index in np.unique(np.linspace(0, len(source) - 1, count).astype(int)):
        try:
            image, label = source.decode(int(index), pixels=run.preprocessing.pixels)
        except ImageDecodeError:
            continue
        image, label = scoring(run).prepare(run, image, label)
        images.append(image)
        labels.append(label)
    if not images:
        raise RunError(f"no image of the split {split!r} can be read; --int8 needs them")
    numbers = np.asarray(labels)
    return np.stack(images), numbers if source.label_sets is None else source.label_sets[numbers]


def network_input(run: Run, images: np.ndarray, raw: bool) -> np.ndarray:
    """Return what the file takes: prepared images, or with ``raw`` normalized ones."""
    return np.asarray(run.preprocessing.normalize(images)) if raw else images


def write_quantized(path: str, quantized: str, images: np.ndarray, batch_size: int) -> None:
    """Write a file with int8 weights, per channel, and int8 maps.

    Args:
      path: the float32 file.
      quantized: the file to write.
      images: input to calibrate the ranges with.
      batch_size: number of images that are computed together for that.
    """
    model = onnx.load(path)
    kinds = [node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph.node]
    first = kinds.index(True)  # the normalization of the images before it stays in float32
    excluded = [node.name for node in model.graph.node[:first]]
    with _without_advice():
        _quantize_static(path, quantized, _Batches(images, batch_size), excluded)
    result = onnx.load(quantized)
    helper.set_model_props(result, {each.key: each.value for each in model.metadata_props})
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    onnx.checker.check_model(result)
    onnx.save(result, quantized)


def _quantize_static(
    path: str, quantized: str, batches: CalibrationDataReader, excluded: list[str]
) -> None:
    quantize_static(
        path,
        quantized,
        batches,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTIZED),
        nodes_to_exclude=excluded,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        # Other methods keep all maps of all images in memory.
        calibrate_method=CalibrationMethod.MinMax,
    )


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Drop ONNX Runtime's warnings, which advise to do what the export has done.

    They use the root logger, which would otherwise get a handler for the rest of the process.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class _Batches(CalibrationDataReader):
    """Images for the calibration, a batch at a time."""

    def __init__(self, images: np.ndarray, size: int):
        parts = range(0, len(images), size)
        self._batches = iter([images[start : start + size] for start in parts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch as the file's input, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _measure(folder: str, arguments: Sequence[str], images: np.ndarray) -> dict[str, Any]:
    """Return the outputs of two files and their times, from a new process."""
    np.save(os.path.join(folder, "images.npy"), images)
    text, outputs = outputs_of(
        ["-P", str(Path(measurement.__file__)), *arguments],
        folder,
        TIMEOUT_SECONDS,
        "measuring the quantized file",
        "the quantized file cannot be loaded with onnxruntime",
    )
    return json.loads(text) | {"outputs": outputs}
