"""Which part of the initial weights is that of ``config.init_from``, and their preprocessing."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from flax_resnet import ResNet, init_variables, save_weights
from flax_resnet.weights import SourcePreprocessing
from tests.conftest import ROOT, free_port
from tests.flax_resnet.weights import hub_server
from train.config.loading import default_config, load_config
from train.engine import pretrained
from train.engine.pretrained import InitialWeights, follow_preprocessing
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


@pytest.mark.parametrize("primary", [True, False])
def test_only_the_first_process_prints_the_report(primary, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrained.distributed, "is_primary", lambda: primary)
    save_weights(MODEL, init_variables(MODEL, 1, (8, 8, 3)), path := tmp_path / "w.safetensors")
    config = SimpleNamespace(init_from=str(path), init_head="fresh", seed=2)
    pretrained.initial_variables(config, MODEL, (8, 8, 3), ("cat", "dog"))
    out, err = capsys.readouterr()
    assert ("matched" in out, "newly initialized" in out) == (primary, primary)
    assert "matched" not in err and "newly initialized" not in err


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
    save_weights(MODEL, init_variables(MODEL, 0, (8, 8, 3)), tmp_path / "single.safetensors")
    config.init_from = f"{tmp_path / 'single.safetensors'}#ema"
    with pytest.raises(
        RunError, match="has no part 'ema': it has one network, so leave out '#ema'"
    ):
        pretrained.initial_variables(config, MODEL, (8, 8, 3), ("cat", "dog"))


# Preprocessing --------------------------------------------------------------------------------

FOUND = SourcePreprocessing(
    "timm's config.json", (0.5,) * 3, (0.25,) * 3, 128, 0.9, "bicubic", notes=("something",)
)
DEFAULTS = default_config().dataset


def follow(config, found=FOUND):
    config.init_from = "w.safetensors"
    follow_preprocessing(config, InitialWeights(Path("w.safetensors"), found))
    return config.dataset


def test_keys_that_are_not_set_follow_the_weights(capsys):
    config = default_config()
    dataset = follow(config)
    for name, value in FOUND.values().items():
        assert dataset[name] == value
    assert config.init_followed == tuple(FOUND.values())
    output = capsys.readouterr()
    assert (
        "preprocessing of timm's config.json, for keys of dataset that are not set: mean=0.5,0.5,"
        "0.5, std=0.25,0.25,0.25, image_size=128, crop_pct=0.9, interpolation=bicubic\n"
    ) in output.out
    assert output.err == "note: something\n"
    # They still count as not set, so that a second run of this configuration follows as well.
    assert follow(config, SourcePreprocessing("another", crop_pct=0.8)).crop_pct == 0.8


SET = "config.dataset.update(mean=(0.485, 0.456, 0.406), crop_pct=1.0, image_size=224)"
GIVEN = (
    ("dataset.mean", "0.485,0.456,0.406"),
    ("dataset.crop_pct", "1.0"),
    ("dataset.image_size", "224"),
)


@pytest.mark.parametrize(
    "in_recipe, on_command_line", [(SET, ()), ("pass", GIVEN)], ids=["recipe", "command line"]
)
def test_keys_that_are_set_win_even_at_their_defaults(in_recipe, on_command_line, tmp_path, capsys):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from train import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        f"    {in_recipe}\n"
        "    return config\n"
    )
    config = load_config(str(recipe), on_command_line)
    dataset = follow(config)
    assert (dataset.mean, dataset.crop_pct, dataset.image_size) == (DEFAULTS.mean, 1.0, 224)
    assert (dataset.std, dataset.interpolation) == (FOUND.std, FOUND.interpolation)
    assert config.init_followed == ("std", "interpolation")
    note, mean, crop_pct = capsys.readouterr().err.splitlines()  # any image size is right
    assert note == "note: something"
    assert mean == (
        "warning: dataset.mean is 0.485,0.456,0.406, but the weights are of images with 0.5,0.5,0.5"
        " (timm's config.json); without that key it would follow them"
    )
    assert "dataset.crop_pct is 1, but the weights are of images with 0.9" in crop_pct


def test_set_keys_that_agree_are_no_contradiction(capsys):
    config = default_config()
    config.dataset.update(mean=(0.5,), std=(0.25, 0.25, 0.25), crop_pct=0.9001)
    follow(config)
    assert config.init_followed == ("image_size", "interpolation")
    assert capsys.readouterr().err == "note: something\n"


def test_statistics_of_other_channels_do_not_follow_and_are_named(capsys):
    config = default_config()
    config.dataset.update(channels=1, std=(0.3,))
    assert follow(config).mean == DEFAULTS.mean
    output = capsys.readouterr().err
    assert "note: dataset.mean keeps its default: that of the weights is for 3 channels" in output
    assert "dataset.std keeps" not in output  # set by the user
    assert config.init_followed == ("image_size", "crop_pct", "interpolation")
    assert follow(config, SourcePreprocessing("x", mean=(0.3,))).mean == (0.3,)


def test_unknown_and_ignored_preprocessing(tmp_path, capsys):
    config = default_config()
    assert follow(config, None) == DEFAULTS
    assert "note: how images were prepared for w.safetensors is unknown" in capsys.readouterr().err
    save_weights(MODEL, init_variables(MODEL, 1, (8, 8, 3)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"crop_pct": 0.6}}')
    config.init_from = str(tmp_path)
    assert pretrained.find_weights(config).preprocessing.crop_pct == 0.6
    config.init_preprocessing = "off"
    weights = pretrained.find_weights(config)
    assert weights == InitialWeights(tmp_path)
    follow_preprocessing(config, weights)
    assert config.dataset == DEFAULTS and config.init_followed == ()
    assert not capsys.readouterr().out


def test_contradicting_files_are_a_warning(capsys):
    follow(default_config(), SourcePreprocessing("x", contradictions=("one has 1, other 2",)))
    assert capsys.readouterr().err == "warning: one has 1, other 2\n"


def test_a_file_that_only_torchvision_has(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub/checkpoints/resnet50-11ad3fa6.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    config = default_config()
    config.init_from = file.name
    with pytest.raises(RunError, match=f"no file or folder.*--config.init_from={file}$"):
        pretrained.find_weights(config)


def test_a_hub_out_of_reach_is_one_line_with_what_works_offline(tmp_path):
    """The real client; nothing listens at its address."""
    pytest.importorskip("huggingface_hub")
    file = tmp_path / "hub/checkpoints/resnet50-0676ba61.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    process = subprocess.run(
        [
            *(sys.executable, "-m", "train.main", "--config", "resnet50_folder_finetune"),
            *("--workdir", str(tmp_path / "run"), f"--config.dataset.data_dir={tmp_path}"),
        ],
        env=hub_server.environment(f"http://127.0.0.1:{free_port()}", tmp_path)
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1 and not process.stdout
    assert process.stderr == (
        "error: config.init_from='resnet50.a1_in1k' is no file, and timm/resnet50.a1_in1k could not"
        " be downloaded (ConnectError) and is not in the cache: check the network, or use a file:"
        f" --config.init_from=FILE; torchvision keeps its files in {file.parent}, such as"
        f" {file.name}\n"
    )
