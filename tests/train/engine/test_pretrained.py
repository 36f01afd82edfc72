"""Which part of the initial weights is that of ``config.init_from``."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from flax_resnet import ResNet, init_variables, save_weights
from train.engine import pretrained
from train.runtime.errors import RunError

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


def test_one_of_several_networks_in_a_file_is_named(tmp_path, capsys):
    files = {}
    for seed, prefix in enumerate(("", "ema/")):
        variables = init_variables(MODEL, seed, (8, 8, 3))
        flat = flatten_dict(variables, sep="/")
        files |= {f"{prefix}{name}": leaf for name, leaf in flat.items()}
    np.savez(tmp_path / "w.npz", **files)
    for part, seed in (("", 0), ("#ema", 1)):
        source = f"{tmp_path / 'w.npz'}{part}"
        config = SimpleNamespace(init_from=source, init_head="auto", seed=2)
        loaded = pretrained.initial_variables(config, MODEL, (8, 8, 3), ("cat", "dog"))
        jax.tree.map(np.testing.assert_array_equal, loaded, init_variables(MODEL, seed, (8, 8, 3)))
        assert "matched, 0 new, 0 left in the file" in capsys.readouterr().out
    config.init_from = f"{tmp_path / 'w.npz'}#teacher"
    with pytest.raises(RunError, match=r"has no part 'teacher'; it has '\.', 'ema'"):
        pretrained.initial_variables(config, MODEL, (8, 8, 3), ("cat", "dog"))
