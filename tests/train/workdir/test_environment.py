"""What a run records of its environment."""

import importlib.metadata
import platform

import jaxlib
import pytest

from flax_resnet.ops.onednn import library
from train.workdir import environment


@pytest.mark.parametrize(("switch", "computes"), [("1", True), ("0", False)])
def test_versions_name_onednn_only_if_it_computes(monkeypatch, switch, computes):
    pytest.importorskip("llvmlite")
    try:
        importlib.metadata.distribution(library.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {library.DISTRIBUTION}")
    monkeypatch.setenv(library.SWITCH, switch)
    library.is_available.cache_clear()
    try:
        versions = environment.versions()
    finally:
        library.is_available.cache_clear()
    assert versions["python"] == platform.python_version()
    assert versions["jaxlib"] == jaxlib.__version__
    assert versions.get("onednn") == ("3.2.0" if computes else None)
