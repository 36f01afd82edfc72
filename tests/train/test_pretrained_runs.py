"""Runs from pretrained weights: what they answer, and what they keep when they are resumed."""

import json

import numpy as np
import pytest
from PIL import Image

from flax_resnet import ResNet, init_variables, load_run, save_weights
from tests.conftest import DIGITS, ROOT
from tests.flax_resnet.keras_nets import NAMES, small_net
from tests.flax_resnet.peers import peer
from tests.flax_resnet.weights.test_keras_files import randomize
from tests.train.pictures import photograph
from train.config.loading import default_config, load_config
from train.loop import train
from train.runtime.errors import UsageError
from train.runtime.signals import StopRequest
from train.workdir import run_files

SIZE, IMAGES = 40, 40


@pytest.mark.peer
@pytest.mark.parametrize("version", [1, 2])
def test_run_of_keras_weights_answers_as_keras(version, tmp_path, commands):
    """Evaluated on pictures whose labels are Keras's own answers."""
    keras = peer("keras")
    net = randomize(small_net(version, stage_sizes=(2, 2), width=64, size=SIZE))
    module = keras.applications.resnet if version == 1 else keras.applications.resnet_v2
    pictures = np.stack([photograph(seed, SIZE, SIZE) for seed in range(IMAGES)])

    def logits():
        return np.asarray(net(module.preprocess_input(pictures.astype("float32"))))

    head = net.layers[-1]
    head.bias.assign(head.bias - logits().mean(0))  # otherwise one class would be all answers
    head.kernel.assign(head.kernel / logits().std())
    head.bias.assign(head.bias - logits().mean(0))
    answers = logits().argmax(1)
    assert len({*answers}) == 5
    for split in ("train", "val"):
        for number, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
            path = tmp_path / "data" / split / str(answer) / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    net.save_weights(tmp_path / "keras.weights.h5")

    # One step with rate 0, so that what is evaluated are the weights of the file.
    overrides = {
        "dataset.name": "folder",
        "dataset.data_dir": tmp_path / "data",
        "dataset.eval_split": "val",
        "dataset.image_size": SIZE,
        "model.name": NAMES[version],
        "model.stage_sizes": "2,2",
        "model.width": 64,
        "init_from": tmp_path / "keras.weights.h5",
        "init_head": "keep",
        "freeze": "backbone",
        "batch_size": 8,
        "num_steps": 1,
        "schedule.learning_rate": 0,
    }
    texts = [(name, str(value)) for name, value in overrides.items()]
    config = load_config(str(ROOT / "configs/default.py"), texts)
    workdir = str(tmp_path / "run")
    assert train(config, workdir, StopRequest())["top1"] == 1.0
    process = commands.call("train.evaluate", "--workdir", workdir)
    assert json.loads(process.stdout.splitlines()[-1])["top1"] == 1.0, process.stderr
    run = load_run(workdir)
    probabilities = run.predict(
        sorted((tmp_path / "data/val").rglob("*.png"), key=lambda p: p.name)
    )
    theirs = np.exp(logits()) / np.exp(logits()).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, theirs, atol=1e-5)
    stored = run_files.read_config(workdir)
    assert stored.init_followed == ("mean", "std")


MODEL = ResNet((1,), block="residual", width=16, stem="cifar", num_classes=10)


@pytest.fixture
def config(data_dir):
    """Return a new configuration of a run from the weights in a folder."""

    def make(init_from, **keys):
        config = load_config(str(ROOT / DIGITS))
        config.dataset.update(data_dir=data_dir, image_size=8, **keys)
        config.model.stage_sizes = (1,)
        config.init_from = str(init_from)
        config.num_steps = 1
        return config

    return make


def test_resumed_run_keeps_what_it_started_with(config, tmp_path, capsys):
    repository, workdir = tmp_path / "weights", str(tmp_path / "run")
    repository.mkdir()
    save_weights(MODEL, init_variables(MODEL, 0, (8, 8, 3)), repository / "model.safetensors")
    cfg = {"crop_pct": 0.8, "interpolation": "bicubic", "mean": [0.1] * 3}
    (repository / "config.json").write_text(json.dumps({"pretrained_cfg": cfg}))
    result = train(config(repository), workdir, StopRequest())
    assert "warning: dataset.mean is 0.305" in capsys.readouterr().err  # the recipe sets it
    preprocessing = load_run(workdir).preprocessing
    assert (preprocessing.resize, preprocessing.interpolation) == (10, "bicubic")
    assert preprocessing.mean == (0.305, 0.305, 0.305)

    # Neither the weights nor what is said of them are needed again, or followed again.
    cfg["crop_pct"] = 0.5
    (repository / "config.json").write_text(json.dumps({"pretrained_cfg": cfg}))
    (repository / "model.safetensors").unlink()
    assert train(config(repository), workdir, StopRequest()) == result
    assert load_run(workdir).preprocessing == preprocessing
    assert run_files.read_config(workdir).init_followed == ("crop_pct", "interpolation")
    with pytest.raises(UsageError, match=r"dataset.crop_pct was 0.8, is now 1.0"):
        train(config(repository, crop_pct=1.0), workdir, StopRequest())

    # A run from this one's weights follows it, and one of an older version keeps its defaults.
    train(config(workdir), str(tmp_path / "second"), StopRequest())
    assert load_run(str(tmp_path / "second")).preprocessing == preprocessing
    assert "preprocessing of its run" in capsys.readouterr().out
    old = tmp_path / "second" / "config.json"
    keys = json.loads(old.read_text())
    del keys["init_followed"], keys["init_preprocessing"]
    defaults = default_config().dataset
    keys |= {f"dataset.{n}": defaults[n] for n in ("crop_pct", "interpolation")}
    old.write_text(json.dumps(keys))
    assert run_files.check(str(tmp_path / "second"), config(workdir)) is True
