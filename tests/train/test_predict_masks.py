"""train.predict of runs of task='segmentation': the classes of all pixels of pictures."""

import csv
import io
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnet import load_run
from flax_resnet.decoding import ImageDecodeError, decode_mask
from flax_resnet.dense.pixel_classes import PixelClassifier
from flax_resnet.images.mask_files import COLORS, color_classes, encode_mask
from tests.conftest import ROOT
from tests.flax_resnet.peers import randomized
from tests.train.data.masked import opened
from tests.train.pictures import photograph
from tests.train.test_segmentation_runs import CLASSES, segmentation_config
from train.engine.experiment import build_experiment
from train.engine.step import create_state
from train.predict import __main__ as predict
from train.reporting.segmentation.mask_prediction import predict_masks, shrinking
from train.runtime.errors import UsageError
from train.workdir import run_files
from train.workdir.checkpoints import Checkpoints


def make_run(path, canvas, **model):
    """Write a run of a small network with random weights and batch statistics."""
    config = segmentation_config()
    config.model.update(aux_head=False, **model)
    config.dataset.image_size, config.ema.decay = canvas, 0.0
    experiment = build_experiment(config, path)
    state = create_state(experiment.step_config, (32, 32, 3))
    variables = randomized(experiment.step_config.model)
    state = state.replace(params=variables["params"], batch_stats=variables["batch_stats"])
    run_files.create(path, config)
    loaders = experiment.train_loader, experiment.eval_loader
    run_files.describe(path, config, *loaders, experiment.step_config.task.describe())
    with Checkpoints(path, max_to_keep=1) as checkpoints:
        checkpoints.save(jax.device_get(state.replace(step=np.int32(1))))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("runs") / "masks")
    # A pixel's logits depend on about 10 pixels around it, fewer than the margin of a tile.
    make_run(path, (128, 96), stem="cifar", output_stride=2)
    return load_run(path, kind="segmentation")


@pytest.fixture
def command(run, monkeypatch, capsys, tmp_path):
    """Run the command in this process and an empty folder; return its status and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        given = ["train.predict", "--workdir", run.path, *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        status = predict.main()
        return status, *capsys.readouterr()

    return call


def logits_of(run, image):
    """Return the logits ``(H, W, K)`` of a picture in its own size."""
    inputs = (image[None] / 255 - run.preprocessing.mean) / run.preprocessing.std
    return np.asarray(jax.jit(run.model.apply)(run.variables, inputs.astype(np.float32)))[0]


def test_a_mask_has_the_classes_of_the_largest_logits(run):
    image = photograph(0, 128, 96)
    logits = logits_of(run, image)
    classes = PixelClassifier(run)(image)
    assert classes.dtype == np.uint8 and len(np.unique(classes)) > 1
    np.testing.assert_array_equal(classes, logits.argmax(-1))


def test_a_smaller_picture_is_padded_to_the_canvas_as_in_evaluation(run):
    image = photograph(1, 77, 50)
    canvas = np.empty((128, 96, 3), np.uint8)
    canvas[:] = run.preprocessing.fill
    canvas[:77, :50] = image
    expected = logits_of(run, canvas)[:77, :50].argmax(-1)
    np.testing.assert_array_equal(PixelClassifier(run)(image), expected)


@pytest.mark.parametrize("size", [(320, 288), (300, 251)])
def test_tiles_join_to_the_mask_of_the_whole_picture(run, size):
    image = photograph(2, *size)
    # Their last ones exceed the picture, up to multiples of the strides.
    padded = np.empty((-(-size[0] // 16) * 16, -(-size[1] // 8) * 8, 3), np.uint8)
    padded[:] = run.preprocessing.fill
    padded[: size[0], : size[1]] = image
    logits = logits_of(run, padded)[: size[0], : size[1]]
    *_, second, first = np.moveaxis(np.sort(logits), -1, 0)
    differs = PixelClassifier(run)(image) != logits.argmax(-1)
    assert not (differs & (first - second > 1e-5)).any()  # but for rounding
    assert len(np.unique(logits.argmax(-1))) > 1


def test_a_written_mask_is_read_back_by_the_source_of_folders(run, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        file, image = tmp_path / split / "images" / "a.png", photograph(3, 90, 200)
        Image.fromarray(image).save(file)
        [prediction] = predict_masks(run, [str(file)], str(tmp_path / split / "masks"))
    read, mask = opened(tmp_path).decode(0)
    np.testing.assert_array_equal(read, image)
    np.testing.assert_array_equal(mask, PixelClassifier(run)(image))
    counts = {area.number: area.pixels for area in prediction.areas}
    assert counts == {k: n for k, n in enumerate(np.bincount(mask.ravel()).tolist()) if n}


def test_palette_pngs_keep_all_values_and_have_the_colors_of_pascal_voc():
    classes = np.arange(256, dtype=np.uint8).reshape(8, 32)
    encoded = encode_mask(classes)
    np.testing.assert_array_equal(decode_mask(encoded), classes)
    shown = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).reshape(-1, 3)
    assert shown[[0, 1, 2, 15, 20, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0]),
        *([192, 128, 128], [0, 64, 128], [224, 224, 192]),
    ]
    assert len({*map(tuple, COLORS.tolist())}) == 256


def test_files_are_written_and_areas_printed(run, command, tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for seed, place in enumerate(("a.png", "b.jpg", "deep/a.png")):
        Image.fromarray(photograph(seed, 30 + 70 * seed, 41)).save(pictures / place)
    (pictures / "broken.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    out_folders = "--masks", "out/masks", "--overlays", "out/overlays"
    status, out, err = command("pictures", "--json", *out_folders)
    assert status == 1 and "broken.png" in err and "1 of 4 images failed" in err
    rows = {row["file"]: row for row in map(json.loads, out.splitlines())}
    assert "error" in rows.pop("pictures/broken.png")
    assert {row["mask"] for row in rows.values()} == {
        f"out/masks/{name}.png" for name in ("a", "a_2", "b")
    }
    for file, row in rows.items():
        image = np.asarray(Image.open(file).convert("RGB"))
        with open(row["mask"], "rb") as mask:
            classes = decode_mask(mask.read())
        assert classes.shape == image.shape[:2]
        for area in row["classes"]:
            assert area["class"] == CLASSES[area["number"]]
            assert area["pixels"] == (classes == area["number"]).sum()
            assert area["share"] == pytest.approx(area["pixels"] / classes.size)
        assert sum(area["pixels"] for area in row["classes"]) == classes.size
        if file.endswith("png"):
            overlay = np.asarray(Image.open(row["overlay"]))
            np.testing.assert_array_equal(overlay, color_classes(image, classes))
    status, table, _ = command("pictures", "--csv")
    listed = list(csv.DictReader(io.StringIO(table)))
    first = [row for row in listed if row["file"] == "pictures/a.png"]
    areas = rows["pictures/a.png"]["classes"]
    assert [int(row["pixels"]) for row in first] == [area["pixels"] for area in areas]
    assert first[0]["mask"] == "predicted_masks/a.png" and os.path.exists(first[0]["mask"])
    status, text, _ = command("pictures/a.png")
    assert status == 0 and text.startswith(f"pictures/a.png: {areas[0]['class']} ")


def test_overlays_show_class_0_as_it_is_and_the_others_half_covered():
    image = np.full((1, 2, 3), 101, np.uint8)
    shown = color_classes(image, np.array([[0, 1]], np.uint8))
    assert shown.tolist() == [[[101, 101, 101], [50 + 64, 50, 50]]]


def test_shrinking_predicts_at_the_size_of_the_canvas():
    def classify(image):  # bright or dark
        assert image.shape[:2] == (20, 10)
        return (image[..., 0] > 100).astype(np.uint8)

    image = np.zeros((40, 20, 3), np.uint8)
    image[:, 10:] = 200
    np.testing.assert_array_equal(shrinking(classify, (20, 16))(image), image[..., 0] > 100)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("a.png", "--topk", "1"), "--topk has no meaning for this run"),
        (("a.png", "--explain", "x"), "--explain has no meaning"),
        (("a.png", "--masks", "."), "must not be a folder of the pictures"),
        (("a.png", "--masks", "x", "--overlays", "x"), "different folders"),
        (("a.png", "--masks", ""), "--masks is empty; omit it, or name a folder"),
        (("a.csv",), "not for a table"),
    ],
)
def test_flags_without_a_meaning_are_refused(command, tmp_path, flags, message):
    Image.fromarray(photograph(0, 8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("path\na.png\n")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UsageError, match=message):
        command(*flags)
    assert (tmp_path / "a.png").read_bytes() == before


def test_masks_that_the_command_did_not_write_are_never_replaced(command, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(photograph(0, 8, 8)).save(tmp_path / name / "1.png")
    command("a", "--masks", "m", "--overlays", "o")
    command("a", "--masks", "m", "--overlays", "o")  # its own files
    drawn = encode_mask(np.zeros((8, 8), np.uint8))
    (tmp_path / "m" / "1.png").write_bytes(drawn)
    with pytest.raises(UsageError, match=r"--masks='m' has 1 file .* would replace \(m/1.png\)"):
        command("a", "--masks", "m")
    with pytest.raises(UsageError, match=r"--overlays='b' has 1 file .* \(b/1.png\)"):
        command("a", "--overlays", "b")
    assert (tmp_path / "m" / "1.png").read_bytes() == drawn


def test_other_outputs_than_those_of_pixels_are_refused(run, digits_run, monkeypatch):
    with pytest.raises(ValueError, match="has outputs of pixels"):
        load_run(run.path)
    with pytest.raises(ValueError, match="has outputs of images"):
        load_run(digits_run, kind="segmentation")
    given = ["train.predict", "--workdir", digits_run, "a.png", "--masks", "x"]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(UsageError, match="--masks has no meaning"):
        predict.main()


def test_an_unreadable_picture_is_named(run, tmp_path):
    with pytest.raises(ImageDecodeError, match=r"none\.png"):
        PixelClassifier(run)(str(tmp_path / "none.png"))


MEMORY = """
import sys
from train.predict.__main__ import main
from train.runtime.host_memory import peak_memory
status = main()
print(peak_memory())
sys.exit(status)
"""


def test_memory_of_a_large_picture_is_limited(tmp_path):
    """24 megapixels with overlay: within 2 GiB."""
    path = make_run(str(tmp_path / "run"), 512)
    row = np.arange(6000) % 251
    image = np.broadcast_to(row[None, :, None], (4000, 6000, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "large.jpg")
    del image
    command = [sys.executable, "-c", MEMORY, "--workdir", path, str(tmp_path / "large.jpg")]
    command += ["--masks", str(tmp_path / "masks"), "--overlays", str(tmp_path / "overlays")]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert decode_mask((tmp_path / "masks" / "large.png").read_bytes()).shape == (4000, 6000)
    assert int(process.stdout.splitlines()[-1]) < 2 * 2**30
