"""Which part of the initial weights is that of ``config.init_from``."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flax_resnet import ResNet, init_variables, save_weights
from train.engine import pretrained

MODEL = ResNet((1,), block="residual", width=8, stem="cifar", num_classes=2)


@pytest.mark.parametrize(
    "init_head, of_run, keeps_head",
    [
        ("auto", None, True),  # a file without class names
        ("auto", ("cat", "dog"), True),
        ("auto", ("dog", "cat"), False),
        ("keep", ("dog", "cat"), True),
        ("fresh", None, False),
        ("fresh", ("cat", "dog"), False),
    ],
)
def test_head_is_loaded_or_newly_initialized(init_head, of_run, keeps_head, tmp_path, monkeypatch):
    saved = init_variables(MODEL, 1, (8, 8, 3))
    save_weights(MODEL, saved, path := tmp_path / "w.safetensors")
    info = of_run and SimpleNamespace(class_names=of_run)
    monkeypatch.setattr(pretrained, "read_run_info", lambda path: info)
    config = SimpleNamespace(init_from=str(path), init_head=init_head, seed=2)
    loaded = pretrained.initial_variables(config, MODEL, (8, 8, 3), ("cat", "dog"))
    if not keeps_head:
        saved["params"]["head"] = init_variables(MODEL, 2, (8, 8, 3))["params"]["head"]
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)
