"""Comparison of runs of segmentation: IoU by class and its differences, against scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import jaccard_score

from tests.train.compare.test_results import Rows, compared
from tests.train.compare.workdirs import CLASSES, write_run
from train.compare import charts
from train.compare.class_iou import iou_table
from train.compare.comparison import as_text
from train.compare.page import page
from train.compare.pair.pixels import compare_pixels
from train.compare.runs import read
from train.engine import stored_pixel_counts
from train.reporting.report import run_report
from train.runtime.errors import RunError
from train.tasks.segmentation import SegmentationPredictions
from train.tasks.segmentation_metrics import confusion_metrics

IMAGES, SIDE = 40, 12
NAMES = [f"图 <b>{i}</b>.png" for i in range(IMAGES)]
LABELS = np.random.default_rng(0).choice(len(CLASSES), (IMAGES, SIDE**2), p=(0.7, 0.2, 0.1))


def answers(seed, wrong):
    """Return predictions of which a share of about ``wrong`` is another class."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0, 2 * wrong, (IMAGES, 1))
    other = rng.integers(0, len(CLASSES), LABELS.shape)
    return np.where(rng.random(LABELS.shape) < shares, other, LABELS)


def write_pixels(path, predicted, labels=LABELS, names=NAMES, step=2, classes=CLASSES, **changes):
    """Write the files of a run of segmentation with these predictions; return its path."""
    low = changes.pop("low", 0.4)
    count = len(classes)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, predicted), 1)
    metrics = confusion_metrics(confusion)
    results = {f"eval/{name}": value for name, value in metrics.items()}
    values = {"eval.metric": "miou", "task": "segmentation"} | changes.pop("values", {})
    settings = dict(results=results, kind="segmentation", classes=classes, images=("val", IMAGES))
    write_run(path, values, **settings | changes)
    sums = [
        [np.bincount(one, minlength=count) for one in (a, b, a[a == b])]
        for a, b in zip(labels, predicted, strict=True)
    ]
    record = np.arange(len(labels))
    predictions = SegmentationPredictions(record, np.array(sums), confusion, count)
    source = SimpleNamespace(record_name=lambda index: names[index])
    assert stored_pixel_counts.store(str(path), step, predictions, source)
    iou = jaccard_score(labels.ravel(), predicted.ravel(), average=None)
    part = metrics | {
        **{"kind": "segmentation", "dataset": "folder", "split": "val", "weights": "raw"},
        **{"examples": IMAGES, "step": step, "loss": 0.5, "miou_interval": [low, 0.99]},
        "classes": [
            {"name": name, "iou": value, "recall": 0.5, "precision": 0.5}
            | {"images": 1, "pixels": pixels, "predicted": 1, "correct": 1}
            for name, value, pixels in zip(
                classes, iou.tolist(), confusion.sum(1).tolist(), strict=True
            )
        ],
    }
    run_report.write_parts(str(path), {"evaluations": {"val": part}})
    return str(path)


@pytest.fixture
def paths(tmp_path):
    """A worse and a better run."""
    return [
        write_pixels(tmp_path / name, answers(seed, wrong), values={"seed": seed})
        for name, seed, wrong in (("worse", 1, 0.3), ("better", 2, 0.1))
    ]


def test_tables_have_miou_its_interval_and_the_iou_of_each_class(paths):
    result = compared(paths)
    [cohort] = result.cohorts
    assert [run.name for run in cohort] == ["better", "worse"]
    expected = [
        jaccard_score(LABELS.ravel(), answers(seed, wrong).ravel(), average=None)
        for seed, wrong in ((2, 0.1), (1, 0.3))
    ]
    table = iou_table(cohort)
    assert table.head == ["class", "share of the pixels", "better", "worse"]
    for row in table.rows:
        k = CLASSES.index(row[0])
        assert row[1] == f"{100 * (LABELS == k).mean():.1f} %"
        assert row[2:] == [f"{100 * iou[k]:.2f} %" for iou in expected]
    assert [CLASSES.index(row[0]) for row in table.rows] == np.argsort(expected[0]).tolist()
    text, html = as_text(result), page(result)
    assert "Results by mIoU on folder" in text and "IoU by class:" in text
    assert f"{100 * expected[0].mean():.2f} % best" in text and "40.00 to 99.00 %" in text
    titles = next(cells for _, cells in Rows(html).rows if cells and cells[0] == "run")
    assert titles[:6] == [
        *("run", "mIoU", "seed", "95 % interval", "mIoU baseline", "pixel accuracy")
    ]
    assert not result.unpaired and "predictions.npz" not in html and "McNemar" not in html
    assert any(p.title == "Evaluation mIoU" for p in charts.curve_panels([cohort], [cohort]))


def test_differences_and_paired_intervals_are_those_of_scikit_learn_and_scipy(paths):
    found = compare_pixels(*map(read, paths))
    predicted = answers(1, 0.3), answers(2, 0.1)

    def iou(index, which):
        return jaccard_score(LABELS[index].ravel(), predicted[which][index].ravel(), average=None)

    everything = np.arange(IMAGES)
    first, second = iou(everything, 0), iou(everything, 1)
    assert found.overall.difference == pytest.approx(second.mean() - first.mean(), abs=1e-9)
    for one in found.classes:
        k = CLASSES.index(one.name)
        assert (one.first, one.second) == pytest.approx((first[k], second[k]), abs=1e-9)
        assert one.examples == (LABELS == k).any(1).sum()
    expected = scipy.stats.bootstrap(
        (everything,),
        lambda index: iou(index, 1).mean() - iou(index, 0).mean(),
        vectorized=False,
        method="percentile",
        n_resamples=500,
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = expected.high - expected.low
    assert found.overall.interval == pytest.approx([*expected], abs=0.2 * width)
    assert found.overall.is_clear
    text = " ".join(as_text(compared(paths)).split())
    assert "better is better than worse on these 40 images: mIoU" in text
    assert "the 95 % interval excludes 0 for 3 of 3 classes" in text


def test_equal_and_similar_runs_are_no_clear_difference(tmp_path):
    a, b, c = (
        write_pixels(tmp_path / name, answers(seed, 0.2), values={"schedule.learning_rate": rate})
        for name, seed, rate in (("a", 1, 0.1), ("b", 1, 0.2), ("c", 3, 0.3))
    )
    assert "No difference on these 40 images" in " ".join(as_text(compared([a, b])).split())
    text = " ".join(as_text(compared([a, c])).split())
    assert "No clear difference on these 40 images: mIoU" in text and "includes 0" in text


def test_an_interval_that_reaches_down_to_the_baseline_is_marked(tmp_path):
    path = write_pixels(tmp_path / "low", answers(1, 0.3), low=0.1)
    text = " ".join(as_text(compared([path])).split())
    assert "! not clearly above the baseline" in text and "of mIoU reaches down" in text


def test_images_are_matched_by_their_names(paths, tmp_path):
    order = np.random.default_rng(3).permutation(IMAGES)
    other = write_pixels(
        tmp_path / "other",
        answers(2, 0.1)[order],
        LABELS[order],
        [NAMES[i] for i in order],
        values={"seed": 9},
    )
    expected = compare_pixels(*map(read, paths))
    found = compare_pixels(read(paths[0]), read(other))
    assert found.overall == expected.overall and found.classes == expected.classes


def test_other_classes_masks_and_images_are_named_as_not_comparable(paths, tmp_path):
    few = write_pixels(
        *(tmp_path / "few", np.minimum(answers(1, 0.3), 1), np.minimum(LABELS, 1)),
        classes=("cat", "dog"),
    )
    result = compared([*paths, few])
    assert [len(cohort) for cohort in result.cohorts] == [2, 1]
    expected = (
        "Not comparable, since their classes differ: worse, better (3 classes: cat, dog, owl); few"
        " (2 classes: cat, dog)."
    )
    assert expected in " ".join(as_text(result).split()) and expected in page(result)
    with pytest.raises(RunError, match="worse and few have different classes"):
        compare_pixels(read(paths[0]), read(few))

    shrunk = LABELS.copy()
    shrunk[:3, 0] = (shrunk[:3, 0] + 1) % 3
    masks = write_pixels(tmp_path / "masks", answers(1, 0.3), shrunk)
    with pytest.raises(RunError, match=r"different masks of 3 images, .*dataset\.image_size"):
        compare_pixels(read(paths[0]), read(masks))
    images = write_pixels(tmp_path / "images", answers(1, 0.3), names=["x", *NAMES[1:]])
    with pytest.raises(RunError, match="39 in common, 1 only of the first and 1 only of"):
        compare_pixels(read(paths[0]), read(images))
    classifier = write_run(tmp_path / "classifier", {"seed": 5})
    [text] = compared([paths[0], classifier]).unpaired
    assert "worse and classifier are of different kinds: pixels and images" in text


def test_runs_without_counts_or_reports_say_what_writes_them(paths, tmp_path):
    (tmp_path / "worse" / "report.json").unlink()
    (tmp_path / "better" / stored_pixel_counts.FILE).unlink()
    result = compared(paths)
    [text] = result.unpaired
    assert "better has no pixel_counts.npz" in text and "python -m train.evaluate" in text
    note = "the reports of worse have no classes of the last evaluation"
    assert note in " ".join(as_text(result).split()) and note in page(result)
    (tmp_path / "worse" / stored_pixel_counts.FILE).write_bytes(b"PK damaged")
    with pytest.raises(RunError, match=r"pixel_counts\.npz"):
        stored_pixel_counts.read(paths[0])


def test_many_classes_and_runs_stay_readable(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    classes = tuple(f"class {k} {'x' * 60}" for k in range(30))
    labels = np.random.default_rng(1).permuted(np.arange(30).repeat(160)).reshape(40, -1)
    paths = [
        write_pixels(
            tmp_path / f"run{n}",
            np.where(np.random.default_rng(n).random(labels.shape) < 0.2, 0, labels),
            labels,
            classes=classes,
            values={"schedule.learning_rate": n + 1},
        )
        for n in range(14)
    ]
    result = compared(paths)
    lines = as_text(result).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 90
    assert any("and 20 more classes on the page" in line for line in lines)
    html = page(result)
    assert "15 more classes" in html and "only the best 12 of 14 runs are shown" in html
    assert len(html) < 1e6
