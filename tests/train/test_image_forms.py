"""Whole runs on images that are not square RGB images of 8 bits."""

import json

import jax.export
import numpy as np
import pytest
import tifffile
from PIL import Image

from flax_resnet import load_run
from flax_resnet.decoding import cv2
from flax_resnet.images.pixels import RGB_MEAN, RGB_STD
from flax_resnet.preprocessing import center_crop
from tests.train.pictures import photograph
from train.data.augment import configured
from train.data.augment.configured import make_augment
from train.data.augment.pipeline import example_keys
from train.data.loader import DataLoader
from train.export import exporting
from train.loop import train
from train.runtime.errors import UsageError
from train.runtime.signals import StopRequest
from train.statistics import channel_statistics


def tiny(config):
    config.model.update(name="resnet20", stage_sizes=(1,), width=4)
    config.num_steps = 2
    config.eval.every_epochs = config.checkpoint.every_epochs = 0
    config.schedule.warmup_epochs = 0
    return config


def test_images_that_are_not_square(digits_config, tmp_path):
    """Trained at another size with every geometric augmentation."""
    config, workdir = tiny(digits_config), str(tmp_path / "run")
    config.dataset.update(image_size=(24, 40), train_sizes=(12,), train_size_epochs=())
    config.augment.update(pad_crop=2, hflip=True, rrc_scale=(0.5, 1.0), random_erasing=0.5)
    result = train(config, workdir, StopRequest())
    described = json.loads((tmp_path / "run/run.json").read_text())
    assert described["preprocessing"]["image_size"] == [24, 40]
    assert result["examples"] == 360 and np.isfinite(result["loss"])
    samples = Image.open(tmp_path / "run/samples.png")
    assert samples.width > samples.height  # wide images
    crop = load_run(workdir).prepare(photograph(0, 50, 100))
    np.testing.assert_array_equal(crop, [center_crop(photograph(0, 50, 100), (24, 40), (24, 40))])


def write_folder(root, write, channels, dtype):
    """Write 8 images of each of two classes, bright and dark, in two splits."""
    rng = np.random.default_rng(0)
    half = np.iinfo(dtype).max // 2
    for split in ("train", "val"):
        for label, name in enumerate(("bright", "dark")):
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                image = rng.integers(0, half, (30, 40, channels)) + half * (1 - label)
                write(root / split / name / f"{i}", image.astype(dtype))


def write_tiff(path, image):
    tifffile.imwrite(f"{path}.tif", image, photometric="minisblack", planarconfig="contig")


def write_png(path, image):
    assert cv2.imwrite(f"{path}.png", image)


@pytest.mark.parametrize(
    "write, channels, ending", [(write_tiff, 12, "tif"), (write_png, 1, "png")]
)
def test_images_of_16_bits(digits_config, tmp_path, commands, write, channels, ending):
    """Trained with geometric augmentation and mixup, evaluated, predicted and exported."""
    write_folder(tmp_path / "data", write, channels, np.uint16)
    config, workdir = tiny(digits_config), str(tmp_path / "run")
    config.dataset.update(
        name="folder", data_dir=str(tmp_path / "data"), eval_split="val", image_size=(15, 20)
    )
    config.dataset.update(channels=channels, bits=16, mean=RGB_MEAN, std=RGB_STD)
    config.augment.update(pad_crop=2, hflip=True, cutout=3, random_erasing=0.5, mixup=0.2)
    config.batch_size = 8
    result = train(config, workdir, StopRequest())
    described = json.loads((tmp_path / "run/run.json").read_text())["preprocessing"]
    assert described["bits"] == 16 and described["mean"] == [0.5] * channels

    # Pictures once, since Grad-CAM takes seconds to compile.
    output, explain = ("--output", tmp_path / "out"), ("--explain", tmp_path / "explained")
    pictures = channels > 1
    evaluated = commands.call("train.evaluate", "--workdir", workdir, *output * pictures)
    assert evaluated.returncode == 0, evaluated.stderr
    again = json.loads(evaluated.stdout.splitlines()[-1])
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5) and again["examples"] == 16

    image = tmp_path / f"data/val/dark/3.{ending}"
    predicted = commands.call(
        *("train.predict", "--workdir", workdir, image, "--json"),
        *explain * pictures,
    )
    assert predicted.returncode == 0, predicted.stderr
    classes = {c["class"]: c["probability"] for c in json.loads(predicted.stdout)["classes"]}
    run = load_run(workdir)
    values = tifffile.imread(image) if ending == "tif" else cv2.imread(str(image), -1)
    np.testing.assert_allclose(
        run.predict(values.reshape(30, 40, channels))[0],
        [classes[name] for name in run.class_names],
        rtol=1e-5,
    )
    assert (tmp_path / "explained/3.png").exists() == pictures

    output = tmp_path / "exported/net.stablehlo"
    lines = "\n".join(exporting.export(run, "stablehlo", str(output)))
    assert "verified with jax" in lines and "evaluation split" in lines
    program = jax.export.deserialize(bytearray(output.read_bytes()))
    assert str(program.in_avals[0]) == f"uint16[N,15,20,{channels}]"
    card = (tmp_path / "exported/net.stablehlo.model_card.md").read_text()
    assert "65535" in card and f"{channels} channel" in card


def test_stored_values_reach_the_network(digits_config, tmp_path):
    """A batch, cached or streamed, normalized as in the step; the network has no part in this."""
    write_folder(tmp_path, write_tiff, 5, np.uint16)
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)
    digits_config.dataset.update(name="folder", data_dir=str(tmp_path), image_size=(30, 40))
    digits_config.dataset.update(channels=5, bits=16, mean=mean, std=std)
    for cache in ("always", "never"):
        digits_config.loader.cache_on_device = cache
        loader = DataLoader(digits_config, "train", training=False).load()
        batch = next(iter(loader.eval_batches(16)))
        images = loader.examples(loader.cached, batch)["image"]
        assert images.dtype == np.uint16
        files = [loader.source.record_name(i) for i in range(16)]
        stored = np.stack([tifffile.imread(tmp_path / file) for file in files])
        np.testing.assert_array_equal(images, stored)
        expected = (stored.astype(np.float64) / 65535 - mean) / std
        given = loader.preprocessing.normalize(images)
        np.testing.assert_allclose(given, expected, rtol=2e-6, atol=2e-6)
    statistics = channel_statistics(loader)
    np.testing.assert_allclose(statistics[1], stored.mean((0, 1, 2)) / 65535, rtol=1e-9)
    np.testing.assert_allclose(statistics[2], stored.std((0, 1, 2)) / 65535, rtol=1e-9)


@pytest.mark.parametrize("key, value", [("policy", "trivial"), ("color_jitter", (0.4, 0, 0, 0))])
@pytest.mark.parametrize("form", [{"channels": 1}, {"bits": 16}])
def test_changes_of_colors_need_colors(digits_config, key, value, form):
    digits_config.dataset.update(form, mean=(0.5,), std=(0.5,))
    digits_config.augment[key] = value
    with pytest.raises(UsageError, match=f"config.augment.{key}=.* changes colors"):
        make_augment(digits_config)


def test_an_own_augmentation_gets_images_of_the_run(digits_config, monkeypatch):
    digits_config.dataset.update(channels=5, bits=16, image_size=(8, 12), mean=(0.5,), std=(0.5,))
    digits_config.augment.pad_crop = 0
    monkeypatch.setattr(configured, "make_policies", lambda keys: (lambda image, key: image // 2,))
    augment = make_augment(digits_config)
    images = np.full((2, 8, 12, 5), 40_000, np.uint16)
    keys = example_keys(0, 0, np.arange(2))
    assert (np.asarray(augment(images, keys)) == 20_000).all()
