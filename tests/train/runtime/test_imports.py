"""Imports of large libraries."""

import gc
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from train.runtime.imports import without_collection, without_module


def test_module_is_missing_only_in_the_block(tmp_path, monkeypatch):
    (tmp_path / "large_library.py").write_text("size = 1")
    monkeypatch.syspath_prepend(tmp_path)
    with without_module("large_library"):
        with pytest.raises(ImportError):
            import large_library
    import large_library

    with without_module("large_library"):
        assert sys.modules["large_library"] is large_library
    assert large_library.size == 1
    del sys.modules["large_library"]


def test_training_does_not_import_pytorch(tmp_path):
    """TensorboardX imports it, and takes over a second for that."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import train.loop"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_nothing_is_collected_in_the_block(monkeypatch):
    with without_collection():  # JAX was imported before
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "jax")
    frozen = gc.get_freeze_count()
    try:
        with without_collection():
            assert not gc.isenabled()
            kept = [[number] for number in range(1000)]
        assert gc.isenabled() and len(kept) == 1000
        assert gc.get_freeze_count() >= frozen + 1000
    finally:
        gc.unfreeze()
