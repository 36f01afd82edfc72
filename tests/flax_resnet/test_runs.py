"""Loading a run, and its predictions, features and explanations."""

import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnet import load_run
from flax_resnet.decoding import ImageDecodeError
from flax_resnet.runs import to_pixels
from flax_resnet.weights import WeightsError
from tests.train.pictures import photograph
from tests.unprivileged import unprivileged
from train.data.loader import DataLoader
from train.engine.run_evaluation import EvaluationOptions, evaluate_run
from train.workdir import run_files


@pytest.fixture(scope="module")
def run(digits_run):
    return load_run(digits_run)


@pytest.fixture(scope="module")
def test_images(digits_run):
    """The test images of the digits as stored, 8×8, and their labels."""
    config = run_files.read_config(digits_run)
    source = DataLoader(config, "test", training=False).source
    images, labels = zip(*(source.decode(i) for i in range(len(source))), strict=True)
    return np.stack(images), np.array(labels)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_predict_matches_evaluation(digits_run, test_images, weights):
    images, labels = test_images
    run = load_run(digits_run, weights=weights)
    probabilities = run.predict(images)
    assert probabilities.shape == (360, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    evaluated = evaluate_run(digits_run, "last", EvaluationOptions(ema=weights == "ema")).result
    assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(evaluated["top1"])
    loss = -np.log(probabilities[np.arange(360), labels]).mean()
    assert loss == pytest.approx(evaluated["loss"], rel=1e-4)


def test_default_weights_are_those_of_the_evaluation(digits_run):
    usual, ema, raw = (load_run(digits_run, weights=w) for w in (None, "ema", "raw"))
    assert usual.weights == "ema"
    same = jax.tree.map(np.array_equal, usual.variables, ema.variables)
    assert all(jax.tree.leaves(same))
    assert not np.array_equal(ema.variables["params"]["head"]["kernel"],
                              raw.variables["params"]["head"]["kernel"])  # fmt: skip


def test_all_image_types_give_the_same_prediction(run, tmp_path):
    pixels = photograph(1, 30, 40)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    forms = [pixels, [pixels], pixels[None], Image.fromarray(pixels), tmp_path / "one.png",
             str(tmp_path / "one.png"), [str(tmp_path / "one.png")]]  # fmt: skip
    expected = run.predict(pixels)
    assert expected.shape == (1, 10)
    for form in forms:
        np.testing.assert_array_equal(run.predict(form), expected)
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(run.predict(gray), run.predict(np.stack([gray] * 3, axis=-1)))


def test_any_number_of_images_needs_two_compilations(run, test_images):
    images = test_images[0]
    whole = run.logits(images[:70])
    prepared = run.logits(run.prepare(images[:70]), prepared=True)
    np.testing.assert_allclose(prepared, whole, atol=1e-4)
    one_by_one = np.concatenate([run.logits(image) for image in images[:3]])
    np.testing.assert_allclose(whole[:3], one_by_one, atol=1e-4)
    for count in (2, 31, 33):
        np.testing.assert_allclose(run.logits(images[:count]), whole[:count], atol=1e-4)
    assert run._compiled["logits"]._cache_size() == 2
    assert run.predict([]).shape == (0, 10)


def test_features_and_endpoints(run, test_images):
    images = test_images[0][:5]
    features, maps = run.features(images), run.endpoints(images)
    assert list(maps) == ["stem", "stage1", "stage2", "stage3"]
    np.testing.assert_allclose(maps["stage3"].mean(axis=(1, 2)), features, rtol=1e-4, atol=1e-5)
    head = run.variables["params"]["head"]
    np.testing.assert_allclose(
        features @ head["kernel"] + head["bias"], run.logits(images), rtol=1e-4, atol=1e-4
    )


def test_logits_and_features_of_one_pass(run, test_images):
    images = test_images[0][:5]
    logits, features = run.logits_and_features(images)
    np.testing.assert_allclose(logits, run.logits(images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(features, run.features(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_folded_run_gives_the_same_answers(digits_run, test_images, weights):
    run = load_run(digits_run, weights=weights)
    folded = run.folded()
    assert "batch_stats" in run.variables and set(folded.variables) == {"params"}
    assert not any("norm" in key for block in folded.variables["params"].values() for key in block)
    expected, found = run.predict(test_images[0]), folded.predict(test_images[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_explain_defaults_to_the_predicted_classes(run, test_images):
    images = test_images[0][:3]
    maps = run.explain(images)
    assert maps.shape == (3, 8, 8) and maps.dtype == np.float32 and maps.any(axis=(1, 2)).all()
    classes = run.logits(images).argmax(axis=1)
    prepared = run.explain(run.prepare(images), classes, prepared=True)
    np.testing.assert_array_equal(maps, prepared)
    assert run.explain([]).shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8, 5), np.uint8), r"\(8, 8, 5\)"),
        ("no such.png", "no such.png: No such file"),
        (__file__, "test_runs.py: .* not a readable image: unknown format"),
        (3, "a list of these, not a value of int"),
        (None, "not a value of NoneType"),
        (b"a.png", "not a value of bytes"),
        ([3], "uint8"),
    ],
)
def test_invalid_images_are_named_in_the_error(run, image, message):
    with pytest.raises(ImageDecodeError, match=message):
        run.predict(image)


def test_images_that_are_not_prepared_are_rejected(run, test_images):
    squares = run.prepare(test_images[0][:2])
    for method in (run.predict, run.logits, run.explain):
        for wrong in (squares / 255.0, squares[:, 1:], squares[..., :1]):
            with pytest.raises(ValueError, match=r"uint8 \(N, 8, 8, 3\), not"):
                method(wrong, prepared=True)


def test_load_run_selects_the_step(digits_run):
    rows = run_files.saved_steps(digits_run)
    assert load_run(digits_run).step == rows[-1] == 44
    assert load_run(digits_run, 22).step == 22
    assert load_run(digits_run, "best").step == evaluate_run(digits_run, "best").result["step"]


def test_load_errors_are_one_line(digits_run, tmp_path):
    for arguments, message in (
        ((tmp_path,), "holds no run"),
        ((None,), "path must be the folder of a run, not None"),
        ((digits_run, 23), "no step 23; it has 22, 44"),
        ((digits_run, "newest"), "'newest'"),
        ((digits_run, "last", "average"), "'average'"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_run(*arguments)


def test_unreadable_checkpoints_are_reported(digits_run, tmp_path):
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "run.json"):
        shutil.copyfile(Path(digits_run) / name, copy / name)
    (copy / "checkpoints").chmod(0)
    with unprivileged(tmp_path), pytest.raises(WeightsError, match="cannot read the checkpoints"):
        load_run("run")


def test_corrupt_last_checkpoint_falls_back_with_a_warning(digits_run, tmp_path, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(digits_run, copy)
    step = copy / "checkpoints" / "44"
    largest = max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    Path(largest).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load_run(copy).step == 22
    assert "checksum differs; using step 22 instead" in caplog.text
    with pytest.raises(WeightsError, match="checksum differs"):
        load_run(copy, 44)


def test_pillow_image_equals_its_file(tmp_path):
    rng = np.random.default_rng(0)
    turned = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
    turned.getexif()[0x0112] = 6  # rotated by 90 degrees
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    deep = Image.fromarray(rng.integers(0, 2**16, (6, 9), np.uint16))
    assert deep.mode == "I;16"
    deep.save(tmp_path / "deep.png")
    for name, shape in (("turned.png", (9, 6, 3)), ("deep.png", (6, 9, 3))):
        expected = to_pixels(tmp_path / name)
        assert expected.shape == shape and expected.std() > 10
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(to_pixels(image), expected)
