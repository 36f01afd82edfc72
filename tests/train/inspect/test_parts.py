"""Confident learning equals cleanlab's counts; pairs equal those of a plain comparison."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from flax_resnet.images.pixels import PixelFormat
from train import arrays_source
from train.inspect import near_duplicates, probe
from train.inspect.images import Images
from train.inspect.inspection import inspect
from train.inspect.label_errors import (
    confident_joint,
    expected_errors,
    find_label_errors,
    find_label_set_errors,
)
from train.inspect.predictions_file import read_probabilities
from train.runtime.errors import RunError


def noisy(seed, classes=6, count=600):
    """Return given and true labels with 5 % errors, and probabilities of a fair model."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, 3.0))
    true = rng.choice(classes, count, p=share)
    given = true.copy()
    wrong = rng.choice(count, count // 20, replace=False)
    given[wrong] = (given[wrong] + rng.integers(1, classes, len(wrong))) % classes
    logits = rng.normal(0, 1, (count, classes)) + 3 * np.eye(classes)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return given, true, probabilities


@pytest.mark.parametrize("seed", range(5))
def test_the_joint_is_that_of_cleanlab(seed):
    count = pytest.importorskip("cleanlab.count")
    given, _, probabilities = noisy(seed)
    joint = confident_joint(given, probabilities)
    expected = count.estimate_joint(given, probabilities)
    np.testing.assert_allclose(joint / joint.sum(), expected, atol=1.5 / len(given))  # rounded
    np.testing.assert_allclose(joint.sum(axis=1), np.bincount(given, minlength=6))


def test_label_errors_have_the_lowest_probability_of_their_label():
    filters = pytest.importorskip("cleanlab.filter")
    better = 0
    for seed in range(8):
        given, true, probabilities = noisy(seed)
        found = find_label_errors(given, probabilities)
        own = probabilities[np.arange(len(given)), given]
        assert (np.diff(own[found]) >= 0).all()
        assert (probabilities.argmax(axis=1)[found] != given[found]).all()
        wrong = given != true

        def f1(listed, wrong=wrong):
            return 2 * wrong[listed].sum() / (len(listed) + wrong.sum())

        issues = np.flatnonzero(filters.find_label_issues(given, probabilities, n_jobs=1))
        better += f1(found) - f1(issues)
    assert better > 0


def digits_behind_noise(wrong_share):
    """Return labels of the digits, which of them are wrong, and probabilities of a weak probe."""
    pixels, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(1)
    wrong = rng.random(len(labels)) < wrong_share
    labels = (labels + wrong * rng.integers(1, 10, len(labels))) % 10
    features = pixels / 16 + 0.4 * rng.standard_normal(pixels.shape)
    return labels, wrong, probe.out_of_fold(features, labels, np.arange(len(labels)), 10)


def test_mistakes_of_a_weak_probe_are_not_taken_for_label_errors():
    labels, _, probabilities = digits_behind_noise(0)
    mistakes = (probabilities.argmax(axis=1) != labels).sum()
    assert mistakes > 300 and len(find_label_errors(labels, probabilities)) < 0.1 * mistakes


def test_wrong_labels_are_found_by_a_weak_probe():
    labels, wrong, probabilities = digits_behind_noise(0.1)
    found = find_label_errors(labels, probabilities)
    assert 0.7 < expected_errors(labels, probabilities) / wrong.sum() < 1.3
    assert wrong[found].mean() > 0.6 and wrong[found].sum() > 0.6 * wrong.sum()


def test_images_of_a_class_in_one_fold_have_no_probabilities():
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = np.array([0, 1] * 19 + [2, 2])
    groups = np.minimum(np.arange(40), 38)  # the two of class 2 are copies
    probabilities = probe.out_of_fold(features, labels, groups, 3)
    assert np.isnan(probabilities).any(axis=1).tolist() == (labels == 2).tolist()


@pytest.mark.parametrize("several", [False, True])
def test_advice_for_weak_probabilities_names_a_run_only_if_none_was_given(several):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 2, (60, 3) if several else 60)
    source = arrays_source(images, labels, class_names=["a", "b", "c"][: 3 if several else 2])
    run = SimpleNamespace(
        features=lambda inputs, prepared: rng.normal(size=(len(inputs), 4)),
        preprocessing=SimpleNamespace(crop=lambda image: image),
    )
    for given in (None, run):
        [note] = (n for n in inspect([source], PixelFormat(), given).notes if "too weak" in n)
        assert ("--workdir" in note) == (given is None) and "--predictions" in note


@pytest.mark.parametrize("several", [False, True])
def test_given_predictions_without_skill_list_nothing(several, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 2, (90, 3) if several else 90)
    source = arrays_source(images, labels, class_names=["a", "b", "c"][: 3 if several else 2])
    names = np.array([source.record_name(index) for index in range(90)])
    probabilities = rng.dirichlet(np.ones(len(source.class_names)), 90)
    np.savez(tmp_path / "p.npz", image=names, probabilities=probabilities)
    found = inspect([source], PixelFormat(), predictions=[str(tmp_path / "p.npz")])
    [note] = (note for note in found.notes if "too weak" in note)
    assert "Give those of better runs" in note
    assert "label error" not in {row.kind for row in found.rows}


def test_labels_that_fit_have_no_errors_and_missing_classes_do_no_harm():
    labels = np.repeat([0, 2], 10)
    assert not len(find_label_errors(labels, np.eye(4)[labels] * 0.9 + 0.025))


def test_pairs_equal_those_of_a_comparison_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 16)
    thumbnails = rng.integers(0, 256, (100, 16, 16, 3), np.uint8)
    noise = rng.normal(0, 4, (100, 16, 16, 3))
    copies = np.clip(thumbnails + noise, 0, 255).astype(np.uint8)
    both = np.concatenate([thumbnails, copies[:60]])
    hashes = np.stack([near_duplicates.difference_hash(image) for image in both])
    sizes = np.full((len(both), 2), 100)
    pairs = near_duplicates.near_pairs(hashes, both, sizes, np.arange(len(both)))
    flat = both.reshape(len(both), -1).astype(float)
    correlation = np.corrcoef(flat)
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    expected = np.argwhere(np.triu((distance <= 20) & (correlation >= 0.97), 1))
    assert sorted((a, b) for a, b, _ in pairs) == list(map(tuple, expected.tolist()))
    assert len(pairs) > 50
    for a, b, score in pairs:
        assert abs(score - correlation[a, b]) < 1e-5


def test_images_that_all_resemble_one_another_end_the_comparison():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    same = np.repeat(image[None], 3000, axis=0)
    hashes = np.repeat(near_duplicates.difference_hash(image)[None], 3000, axis=0)
    with pytest.raises(near_duplicates.TooManyCandidates):
        near_duplicates.near_pairs(hashes, same, np.full((3000, 2), 100), np.arange(3000))


def test_probabilities_equal_those_of_linear_discriminant_analysis():
    """Each image's by scikit-learn's model of the other folds, with the same covariance."""
    from sklearn.covariance import LedoitWolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    features = rng.normal(0, 1, (120, 5)) + 2 * rng.normal(0, 1, (3, 5))[labels]
    groups = np.repeat(np.arange(60), 2)
    result = probe.out_of_fold(features, labels, groups, 4)
    assert not result[:, 3].any()
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-5)
    fold, lifted = probe._folds(labels, groups), probe._lift(features)
    assert all(len(np.unique(fold[groups == group])) == 1 for group in range(60))
    training = fold != 0
    means = np.stack([lifted[training & (labels == k)].mean(axis=0) for k in range(3)])
    estimator = LedoitWolf(assume_centered=True).fit(lifted[training] - means[labels[training]])

    class Fixed:  # the covariance that is estimated over all classes at once
        def fit(self, _):
            self.covariance_ = estimator.covariance_
            return self

    model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Fixed())
    model.fit(lifted[training], labels[training])
    expected = model.predict_proba(lifted[~training])
    np.testing.assert_allclose(result[~training, :3], expected, atol=1e-4)


def test_copies_of_an_outlier_do_not_hide_it():
    features = np.random.default_rng(0).normal(0, 1, (200, 3))
    features[:15] = 9.0
    groups = np.where(np.arange(200) < 15, 0, np.arange(200))
    scores = probe.unusualness(features, groups)
    assert scores[:15].min() > 2 * scores[15:].max()


def test_a_table_in_place_of_predictions_is_an_error_without_advice_of_numpy(tmp_path):
    images = Images([SimpleNamespace(class_names=("a", "b"))], *[np.empty(0)] * 7)
    (tmp_path / "labels.csv").write_text("image,label\na.png,a\n")
    with pytest.raises(RunError, match=r"labels.csv': it is no .npz file of numbers and text$"):
        read_probabilities([str(tmp_path / "labels.csv")], images)


def noisy_sets(count=800):
    """Return given and true sets of four classes with 4 % errors, and probabilities."""
    rng = np.random.default_rng(0)
    true = rng.random((count, 4)) < (0.5, 0.3, 0.2, 0.6)
    given = true ^ (rng.random(true.shape) < 0.04)
    return given, true, 1 / (1 + np.exp(-rng.normal(6 * true - 3, 1.2)))


def test_errors_in_sets_of_classes_are_those_of_each_class_at_least_as_good_as_by_cleanlab():
    multi = pytest.importorskip("cleanlab.multilabel_classification.filter")
    given, true, probabilities = noisy_sets()
    doubtful, wrong = find_label_set_errors(given, probabilities), given != true
    labels = [np.flatnonzero(row).tolist() for row in given]
    theirs = multi.find_multilabel_issues_per_class(labels, probabilities, n_jobs=1)

    def f1(listed):
        return 2 * (listed & wrong).sum() / (listed.sum() + wrong.sum())

    assert f1(doubtful) >= f1(theirs) > 0.5
    probabilities[:, 2] = np.nan
    unknown = find_label_set_errors(given, probabilities)
    assert not unknown[:, 2].any()
    np.testing.assert_array_equal(np.delete(unknown, 2, 1), np.delete(doubtful, 2, 1))
