"""Script: outputs and times of two ONNX files for ``images.npy``, in a process without JAX.

It is started as ``python measurement.py FLOAT32 INT8 BATCH_SIZE OUTPUTS`` in the folder of the
files, writes ``outputs.npz`` there, and prints the times as JSON. OUTPUTS is ``all``, or
``classes`` for the number of the largest output along the last axis, and ``UNDEFINED`` where one is
not finite.
"""

import json
import os
import sys
import time

import numpy as np
import onnxruntime

NAMES = ("float32", "int8")
UNDEFINED = 255
MAX_SECONDS, MAX_REPEATS = 10, 50


def main() -> None:
    """Write the outputs and print the times."""
    images = np.load("images.npy")
    *files, batch_size, kept = sys.argv[1:]
    size, keep = int(batch_size), KEPT[kept]
    sessions = {
        name: onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for name, file in zip(NAMES, files, strict=True)
    }
    parts = range(0, len(images), size)
    outputs = {
        name: np.concatenate([keep(_run(session, images[i : i + size])) for i in parts])
        for name, session in sessions.items()
    }
    np.savez("outputs.npz", **outputs)
    batch = images[:size]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    end = time.perf_counter() + MAX_SECONDS
    for _ in range(MAX_REPEATS):
        for name, session in sessions.items():  # in turns: other programs slow both down
            start = time.perf_counter()
            _run(session, batch)
            times[name].append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    seconds = {name: float(np.median(values)) for name, values in times.items()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(json.dumps({"seconds": seconds, "batch_size": len(batch), "threads": cores}))


def _run(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    [output] = session.run(None, {"images": images})
    return output


def _classes(output: np.ndarray) -> np.ndarray:
    classes = output.argmax(-1).astype(np.uint8)
    return np.where(np.isfinite(output).all(-1), classes, np.uint8(UNDEFINED))


KEPT = {"all": lambda output: output, "classes": _classes}

if __name__ == "__main__":
    main()
