"""Outputs of an exported file, as a new Python process computes them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from train.runtime.errors import RunError


def outputs_of(
    arguments: Sequence[str],
    folder: str,
    seconds: float,
    doing: str,
    failure: str,
    env: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, np.ndarray]]:
    """Run Python in a folder and return its output and the arrays that it wrote.

    Args:
      arguments: those of Python; the code must write ``outputs.npz``.
      folder: working directory of the process.
      seconds: time limit.
      doing: what the process does, for messages, such as ``"verifying a.onnx"``.
      failure: message for a process that fails, before its reason.
      env: environment variables; None: those of this process.

    Raises:
      RunError: the process failed or took too long.
    """
    try:
        process = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"timed out after {seconds} s while {doing}") from None
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no error message"])[-1]
        raise RunError(f"{failure}: {last}")
    with np.load(os.path.join(folder, "outputs.npz")) as outputs:
        return process.stdout, dict(outputs)
