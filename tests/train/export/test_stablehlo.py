"""The versions of JAX that load a StableHLO export."""

import jax
import numpy as np
import pytest
from jax import export

from flax_resnet import load_run
from train.export import stablehlo


@pytest.fixture(scope="module")
def run(digits_run):
    return load_run(digits_run)


def test_program_is_in_the_version_of_the_oldest_jax(run, tmp_path):
    """.ci/run loads one of the newest JAX with the oldest one, and the other way round."""
    path = tmp_path / "net"
    stablehlo.write_stablehlo(run, str(path))
    exported = export.deserialize(bytearray(path.read_bytes()))
    assert exported.mlir_module_serialized[:30].count(b"StableHLO_v1.16.0") == 1
    images = np.random.default_rng(0).integers(0, 256, (3, *run.preprocessing.shape), np.uint8)
    np.testing.assert_allclose(
        exported.call(images), run.predict(images, prepared=True), rtol=0, atol=1e-5
    )
    info = stablehlo.lifetime(str(path))
    assert (info["jax"], info["stablehlo"]) == (jax.__version__, "1.16.0")
    text = stablehlo.describe_lifetime(info)
    assert "6 months newer or 3 weeks older" in text and "reads since 0.10.0" in text


def test_program_that_needs_a_newer_version_keeps_its_own(monkeypatch, tmp_path):
    exported = export.export(jax.jit(lambda x: x + 1))(np.ones(3, np.float32))
    monkeypatch.setattr(stablehlo, "VERSION", "0.8.0")  # the library no longer writes it
    kept = stablehlo.in_oldest_version(exported)
    assert kept is exported
    (tmp_path / "net").write_bytes(kept.serialize())
    info = stablehlo.lifetime(str(tmp_path / "net"))
    assert info["stablehlo"] not in (None, "0.8.0")
    assert "reads since" not in stablehlo.describe_lifetime(info)
