"""train.evaluate of runs of task='segmentation': scales, mirror images and windows."""

import base64
import csv
import io
import json
import os
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torch.nn import functional as F

from flax_resnet import load_run
from flax_resnet.dense.pixel_classes import PixelClassifier
from flax_resnet.dense.views import make_views
from flax_resnet.images.pixels import RGB
from tests.train.data.masked import mask
from tests.train.pictures import photograph
from tests.train.test_predict_masks import make_run
from tests.train.test_segmentation_runs import CLASSES
from train import evaluate
from train.data.canvas import fitted_size, nearest
from train.engine.other_data import OtherData
from train.engine.run_evaluation import EvaluationOptions, evaluate_run
from train.predict import __main__ as predict
from train.reporting.report.pictures import MAX_BYTES
from train.reporting.segmentation import picture_grid, pictures
from train.reporting.segmentation.mask_prediction import shrinking
from train.reporting.segmentation.metrics import SegmentationEvaluation
from train.reporting.task_reports import task_report
from train.runtime.cli import parse_scales
from train.runtime.errors import UsageError
from train.tasks.segmentation_metrics import image_iou

SIZES = {"a": (20, 24), "b": (75, 40), "c": (33, 30), "d": (32, 32), "e": (64, 70)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of random weights whose canvas is smaller than most pictures."""
    path = make_run(str(tmp_path_factory.mktemp("runs") / "small"), 32, output_stride=4)
    return load_run(path, kind="segmentation")


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A data set of pictures of all sizes, one of which cannot be decoded."""
    root = tmp_path_factory.mktemp("street")
    for kind in ("images", "masks"):
        (root / "test" / kind).mkdir(parents=True)
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        classes = mask(seed, height, width, len(CLASSES))
        classes[:3] = 255
        for kind, content in (("images", photograph(seed, height, width)), ("masks", classes)):
            Image.fromarray(content).save(root / "test" / kind / f"{name}.png")
    broken = root / "test" / "images" / "b0.png"
    broken.write_bytes((root / "test" / "images" / "b.png").read_bytes()[:3000])
    shutil.copy(root / "test" / "masks" / "b.png", root / "test" / "masks" / "b0.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def score(labels, answers):
    """Return mIoU by scikit-learn, and the share of right pixels."""
    labels, answers = (np.concatenate([one.ravel() for one in many]) for many in (labels, answers))
    known = labels != 255
    labels, answers = labels[known], answers[known]
    union = np.union1d(labels, answers)
    miou = jaccard_score(labels, answers, labels=union, average="macro")
    return miou, (labels == answers).mean()


@pytest.mark.parametrize("cache", ["auto", "never"])
def test_windows_score_as_the_joined_predictions_of_large_pictures(
    run, street, tmp_path, cache, capsys
):
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    config = json.loads((path / "config.json").read_text())
    config["loader.cache_on_device"] = cache
    (path / "config.json").write_text(json.dumps(config))
    other = OtherData("test", "segmentation_folder", str(street))
    evaluated = evaluate_run(str(path), "last", EvaluationOptions(window=True), other)
    assert "are shrunk" not in "".join(capsys.readouterr())
    classify = PixelClassifier(run)
    images, labels = (
        [np.asarray(Image.open(street / "test" / kind / f"{name}.png")) for name in SIZES]
        for kind in ("images", "masks")
    )
    answers = [classify(image) for image in images]
    miou, accuracy = score(labels, answers)
    result = evaluated.result
    assert result["miou"] == pytest.approx(miou, abs=1e-9)
    assert result["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert (result["examples"], result["tiled"], result["bad"]) == (5, 3, 1)
    names = [evaluated.loader.source.record_name(i) for i in evaluated.predictions.record]
    assert [name[-5:] for name in names] == [f"{name}.png" for name in SIZES]
    for counts, label, answer in zip(evaluated.predictions.counts, labels, answers, strict=True):
        kept = label != 255
        expected = [np.bincount(one[kept], minlength=5) for one in (label, answer)]
        right = label[kept & (label == answer)]
        np.testing.assert_array_equal(counts, [*expected, np.bincount(right, minlength=5)])
    shrunk = evaluate_run(str(path), "last", other=other).result
    assert "are shrunk" in "".join(capsys.readouterr())
    assert "tiled" not in shrunk and shrunk["miou"] != result["miou"]


def test_scales_and_mirror_images_average_probabilities_as_pytorch_does(run, monkeypatch, capsys):
    command = ["train.evaluate", "--workdir", run.path, "--scales", "0.5,1,1.5", "--tta", "flip"]
    monkeypatch.setattr("sys.argv", command)
    assert evaluate.main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert "averaged with mirror images and over the scales 0.5, 1, 1.5" in lines[0]
    assert any("6_test[:26]" in line or "_flip_scales-0.5-1-1.5" in line for line in lines)
    result = json.loads(last)
    assert (result["tta"], result["scales"]) == ("flip", [0.5, 1.0, 1.5])
    loader = evaluate_run(run.path, "last").loader
    inputs = np.asarray(loader.preprocessing.normalize(loader.cached["image"]))
    apply = jax.jit(run.model.apply)
    total = 0
    for scale in (0.5, 1.0, 1.5):
        size = [round(32 * scale)] * 2
        scaled = resized(inputs, size)
        for flip in (1, -1):
            logits = np.asarray(apply(run.variables, scaled[:, :, ::flip]))[:, :, ::flip]
            total = total + torch.from_numpy(resized(logits, [32, 32])).softmax(-1).numpy() / 6
    labels = loader.cached["label"]
    miou, accuracy = score(labels, total.argmax(-1))
    # A pixel whose two largest probabilities differ by the rounding may change its class.
    assert result["miou"] == pytest.approx(miou, abs=2e-3)
    assert result["pixel_accuracy"] == pytest.approx(accuracy, abs=2e-4)
    of_label = np.take_along_axis(total, labels[..., None].astype(int), -1)
    assert result["loss"] == pytest.approx(-np.log(of_label).mean(), rel=1e-4)


def resized(images, size):
    chw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    return F.interpolate(chw, size, mode="bilinear").numpy().transpose(0, 2, 3, 1)


def test_the_iou_of_each_image_is_written(run, street, monkeypatch, capsys, tmp_path):
    other = ["--dataset", "segmentation_folder", "--data_dir", str(street), "--split", "test"]
    written = {}
    for ending in ("csv", "npz"):
        file = str(tmp_path / f"p.{ending}")
        output = ["--predictions", file, "--output", str(tmp_path), "--window"]
        command = ["train.evaluate", "--workdir", run.path, *other, *output]
        monkeypatch.setattr("sys.argv", command)
        assert evaluate.main() == 0
        assert f"predictions  {file}" in capsys.readouterr().out
        written[ending] = file
    with open(written["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [os.path.basename(row["image"]) for row in rows] == [f"{name}.png" for name in SIZES]
    arrays, classify = np.load(written["npz"]), PixelClassifier(run)
    assert arrays["file"].tolist() == [row["image"] for row in rows]
    for row, counts in zip(rows, arrays["counts"], strict=True):
        name = os.path.basename(row["image"])
        image, label = (
            np.asarray(Image.open(street / "test" / kind / name)) for kind in ("images", "masks")
        )
        answer = classify(image)
        iou, accuracy = score([label], [answer])
        assert float(row["iou"]) == pytest.approx(iou, abs=1e-6)
        assert float(row["pixel_accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        assert int(row["pixels"]) == (label != 255).sum() == counts[0].sum()
        known = label != 255
        union = np.union1d(label[known], answer[known]).tolist()
        by_class = jaccard_score(label[known], answer[known], labels=union, average=None)
        found = {CLASSES.index(one): row[one] for one in CLASSES if row[one]}
        assert [*found] == union
        np.testing.assert_allclose([*map(float, found.values())], by_class, atol=1e-6)


def test_predicted_masks_are_averages_too(run, monkeypatch, capsys, tmp_path):
    image = photograph(7, 40, 30)
    Image.fromarray(image).save(tmp_path / "a.png")
    flags = ["--scales", "1,1.5", "--tta", "flip", "--masks", str(tmp_path / "masks")]
    command = ["train.predict", "--workdir", run.path, str(tmp_path / "a.png"), *flags]
    monkeypatch.setattr("sys.argv", command)
    assert predict.main() == 0
    written = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    averaged = PixelClassifier(run, make_views((1.0, 1.5), flip=True))(image)
    np.testing.assert_array_equal(written, averaged)
    # The average over mirror images is that of the mirror image, mirrored.
    canvas, classify = photograph(8, 32, 32), PixelClassifier(run, make_views((1.0,), flip=True))
    differs = classify(canvas) != classify(canvas[:, ::-1])[:, ::-1]
    assert differs.mean() < 0.01 < (PixelClassifier(run)(canvas) != classify(canvas)).mean()


@pytest.mark.parametrize("text", ["0", "1,x", "nan", "5", "0.5,0.5", "-1"])
def test_wrong_scales_are_refused(text):
    with pytest.raises(UsageError, match="--scales"):
        parse_scales(text)
    assert parse_scales("") == (1.0,) and parse_scales("0.5,2") == (0.5, 2.0)


def test_networks_with_outputs_of_images_have_no_scales_and_windows(digits_run):
    for flags in ({"scales": (0.5, 1.0)}, {"window": True}):
        with pytest.raises(UsageError, match="is for networks with outputs of every pixel"):
            evaluate_run(str(digits_run), "last", EvaluationOptions(**flags))


@pytest.mark.parametrize("window", [False, True])
def test_the_report_shows_the_worst_pictures_as_they_were_evaluated(run, street, window):
    other = OtherData("test", "segmentation_folder", str(street))
    evaluated = evaluate_run(run.path, "last", EvaluationOptions(window=window), other)
    metrics = task_report(evaluated).compute(evaluated)
    part = task_report(evaluated).build_part(evaluated, metrics)
    assert "others" not in part and len(part["worst"]) == len(SIZES)
    classify = PixelClassifier(run)
    classify = classify if window else shrinking(classify, (32, 32))
    shares, numbers = [], set()
    for cell in part["worst"]:
        iou, _, name = cell["caption"].split("\n")
        image, label = (
            np.asarray(Image.open(street / "test" / kind / os.path.basename(name)))
            for kind in ("images", "masks")
        )
        answer = classify(image)
        shown, mask, predicted = (decoded(cell[one]) for one in ("image", "mask", "prediction"))
        if window:
            np.testing.assert_array_equal(mask, label)
            np.testing.assert_array_equal(predicted, answer)
            assert iou == f"IoU {100 * score([label], [answer])[0]:.1f} %"
        else:
            assert mask.shape == predicted.shape == fitted_size(label.shape, (32, 32))
            np.testing.assert_array_equal(mask, nearest(label, mask.shape))
            np.testing.assert_array_equal(nearest(predicted, answer.shape), answer)
        assert shown.shape[:2] == mask.shape
        assert cell["aspect"] == pytest.approx(mask.shape[1] / mask.shape[0])
        ignored = (label == 255).mean()
        assert not window or f"ignored {100 * ignored:.1f} %" in cell["in_mask"]
        shares.append(float(iou.split()[1]))
        numbers |= {*np.unique(mask).tolist(), *np.unique(predicted).tolist()}
    assert shares == sorted(shares) and part["shown"] == sorted(numbers)
    html = task_report(evaluated).section("street", part)
    assert html.count('class="picture"') == len(SIZES) and "ignored</" in html
    assert all(f"Mask: {cell['in_mask']}" in html for cell in part["worst"])


def decoded(uri):
    """Return the values of an image in a page: colors, or numbers of classes."""
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def test_pictures_stay_within_the_limit_of_the_page():
    noise = np.random.default_rng(0).integers(0, 256, (16, 300, 400, 3), np.uint8)
    masks = (noise[..., 0] // 64).astype(np.uint8)
    model = SimpleNamespace(
        num_classes=4, apply=lambda variables, images: images[..., [0, 1, 2, 0]]
    )
    preprocessing = SimpleNamespace(
        pixels=RGB, shape=(300, 400, 3), fill=(0, 0, 0), normalize=lambda images: images / 255.0
    )
    source = SimpleNamespace(
        decode=lambda record, *_: (noise[record], masks[record]),
        record_name=lambda record: f"<{record}>",
        class_names=("a", "b", "c", "d"),
    )
    counts = np.full((16, 3, 4), 30_000)
    counts[:, 2] = np.arange(16)[:, None] * 1000
    evaluated = SimpleNamespace(
        variables={},
        model=model,
        result={},
        loader=SimpleNamespace(
            source=source, preprocessing=preprocessing, image_shape=(300, 400, 3)
        ),
        predictions=SimpleNamespace(record=np.arange(16), outputs=4, counts=counts),
    )
    evaluation = SegmentationEvaluation([], image_iou=image_iou(counts))
    part = pictures.picture_parts(evaluated, evaluation)
    cells = [*part["worst"], *part["others"]]
    size = sum(len(cell[name]) for cell in cells for name in ("image", "mask", "prediction"))
    assert 0.4 * MAX_BYTES < size <= MAX_BYTES
    shown = [int(cell["caption"].rpartition("<")[2][:-1]) for cell in cells]
    assert shown == [0, 1, 2, 3, 4, 5, 6, 8, 10, 11, 13, 15]  # the worst ones, and up to the best
    assert "&lt;0&gt;" in "".join(picture_grid.picture_sections(part | {"classes": NAMED}, "k"))


def test_perfect_and_unlabeled_pictures_are_not_among_the_worst():
    chosen = pictures.choose(np.array([1.0, np.nan, 0.5, 1.0, 0.2]))
    assert {name: some.tolist() for name, some in chosen.items()} == {
        "worst": [4, 2],
        "others": [0, 3],
    }


NAMED = [{"name": name} for name in "abcd"]
