"""Test that crafted files are refused in time and memory in proportion to their size."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.flax_resnet.weights import crafted_files

# Read without an error; what they claim is harmless.
HARMLESS = {"hdf5 cycle.h5", "hdf5 link.h5", "safetensors long digits.safetensors"}
HARMLESS |= {"safetensors same name.safetensors", "safetensors stages.safetensors"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what each file took, measured in one child process with limited memory."""
    folder = tmp_path_factory.mktemp("crafted")
    crafted_files.write_all(folder)
    try:
        import h5py
    except ImportError:
        pass
    else:
        crafted_files.write_hdf5(folder, h5py)
    files = sorted(map(str, folder.iterdir()))
    process = subprocess.run(
        [sys.executable, "-m", "tests.flax_resnet.weights.measured", *files],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(rows) == len(files)
    return {os.path.basename(row["path"]): row for row in rows}


def test_crafted_files_take_time_and_memory_in_proportion(results):
    excessive = {
        name: (row["seconds"], row["bytes"])
        for name, row in results.items()
        if row["bytes"] > 4 * row["size"] + 100e6 or row["seconds"] > 2 * (1 + row["size"] // 1e8)
    }
    assert not excessive


def test_crafted_files_are_refused_in_one_line(results):
    accepted = {name for name, row in results.items() if row["error"] is None}
    assert accepted == HARMLESS & results.keys()
    for name, row in results.items():
        assert row["error"] is None or name in row["error"]
        assert (row["error"] or "").isprintable() and len(row["error"] or "") < 1000
        assert "allow_pickle" not in (row["error"] or "")
