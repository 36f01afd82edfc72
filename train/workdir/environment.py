"""The software and hardware of a run, to reproduce it and to compare processes."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import flax_resnet
from flax_resnet import ops
from flax_resnet.ops.onednn import library as onednn
from train.runtime.cli import PROGRAM
from train.runtime.files import ROOT

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the numerical libraries."""
    own = {"flax-resnet": flax_resnet.__version__, "python": platform.python_version()}
    # Only if it computes, since it changes the rounding.
    optional = {"onednn": onednn.version()} if ops.default_backend() == "onednn" else {}
    return own | {name: importlib.metadata.version(name) for name in _LIBRARIES} | optional


def describe() -> dict[str, Any]:
    """Return versions, the code's revision, devices and processes, ready for JSON."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "git": git(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def command() -> str | None:
    """Return this project's command line as shell text, or None if none is running."""
    program = _program()
    return shlex.join([*program, *sys.argv[1:]]) if program else None


def command_with(flags: Mapping[str, str]) -> str:
    """Return this command line with other values of some flags; only these if none is running.

    Args:
      flags: values by flag, such as ``{"--workdir": "runs/new"}``.
    """
    program, arguments = _program(), []
    remaining = iter(sys.argv[1:] if program else ())
    for argument in remaining:
        name, equals, _ = argument.partition("=")
        if name not in flags:
            arguments.append(argument)
        elif not equals:
            next(remaining, None)  # its value
    return shlex.join([*program, *arguments, *(f"{name}={flags[name]}" for name in flags)])


def _program() -> list[str]:
    """Return the words that start this command, without arguments; none if it is no command."""
    if sys.argv[0].startswith(f"{PROGRAM} "):
        return sys.argv[0].split()
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is None or not main.name.startswith("train."):
        return []
    return ["python", "-m", main.name.removesuffix(".__main__")]  # of a command that is a package


def git() -> dict[str, Any] | None:
    """Return ``{"revision", "changed"}`` of the packages' Git repository, or None without one.

    ``changed`` is whether files differ from the revision, not counting untracked ones.
    """

    def run(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return result.stdout.strip()

    try:
        if Path(run("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None  # another project's repository around an installed package
        changed = bool(run("status", "--porcelain", "--untracked-files=no"))
        return {"revision": run("rev-parse", "HEAD"), "changed": changed}
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def code_digest() -> str:
    """Return a checksum of the packages' source files."""
    digest = hashlib.sha256()
    for package in ("flax_resnet", "train"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
