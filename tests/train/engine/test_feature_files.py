"""Files of features: what other programs read in them, and which files are refused."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from train.engine.feature_files import (
    Features,
    check_features_path,
    check_network,
    read_features,
    write_features,
)
from train.runtime.array_files import save_arrays
from train.runtime.errors import RunError, UsageError

FEATURES = np.float32(np.random.default_rng(0).normal(size=(3, 5)))
FILES = ["a.png", "ü/b.png", "broken-\udcff.png"]


@pytest.fixture(params=["f.npz", "f.parquet"])
def path(request, tmp_path):
    if request.param.endswith("parquet"):
        pytest.importorskip("pyarrow")
    return str(tmp_path / "new" / request.param)


def test_what_is_written_is_read(path):
    label = {"label": np.array([1, 0, 1])}
    write_features(path, Features(FILES, FEATURES, "some-ema", label, ("x", "y")))
    features = read_features(path, "--among")
    safe = [*FILES[:2], "broken-\\udcff.png"]
    assert features.files == (FILES if path.endswith("npz") else safe)
    np.testing.assert_array_equal(features.features, FEATURES)
    assert features.features.dtype == np.float32 and features.network == "some-ema"


def test_other_programs_read_names_features_and_labels(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    labels = np.array([1, 0, 1])
    several = np.array([[1, 1], [0, 1], [0, 0]], np.uint8)
    expected = {"one": ["y", "x", "y"], "several": ["x|y", "y", ""]}
    for kind, label in (("one", labels), ("several", several)):
        features = Features([*FILES[:2], "c"], FEATURES, "", {"label": label}, ("x", "y"))
        write_features(str(tmp_path / "f.parquet"), features)
        table = pandas.read_parquet(tmp_path / "f.parquet")
        assert list(table) == ["file", "label", "features"]
        assert table["file"].tolist() == [*FILES[:2], "c"]
        assert table["label"].tolist() == expected[kind]
        np.testing.assert_array_equal(np.stack(table["features"]), FEATURES)
        write_features(str(tmp_path / "f.npz"), features)
        arrays = np.load(tmp_path / "f.npz")
        np.testing.assert_array_equal(arrays["label"], label)
        assert arrays["class_names"].tolist() == ["x", "y"]


def test_columns_of_a_table_do_not_replace_ours(path):
    columns = {"file": ["1", "2", "3"], "features": ["4", "5", "6"], "note": ["", "n", "ä"]}
    write_features(path, Features([*FILES[:2], "c"], FEATURES, "", columns))
    np.testing.assert_array_equal(read_features(path, "--among").features, FEATURES)
    if path.endswith("npz"):
        arrays = np.load(path)
        assert arrays["table_file"].tolist() == ["1", "2", "3"]
        assert arrays["note"].tolist() == ["", "n", "ä"]


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"file": ["a"]}, UsageError, "must have the arrays 'file' and 'features'.*no 'features'"),
        (
            {"file": ["a"], "features": [1.0]},
            UsageError,
            "a name and a row of features for each file",
        ),
        ({"file": ["a"], "features": [[1.0], [2.0]]}, UsageError, "a row of features"),
        ({"file": ["a"], "features": [[np.nan]]}, UsageError, "finite features"),
        ({"file": ["a"], "features": [[1e300]]}, UsageError, "finite features, as float32"),
        ({"file": np.array([b"a"]), "features": [[1.0]]}, UsageError, "a name and a row"),
        ({"file": ["a"], "features": [["1"]]}, UsageError, "a row of features"),
        ({"file": [], "features": np.zeros((0, 3))}, UsageError, "a row of features"),
        ({"file": np.array([{}])}, RunError, "no .npz file of numbers and text"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, error, message):
    file = str(tmp_path / "f.npz")
    if message.startswith("no .npz"):
        np.save(tmp_path / "f.npy", arrays["file"], allow_pickle=True)
        (tmp_path / "f.npy").rename(file)
    else:
        save_arrays(file, {name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(error, match=message):
        read_features(file, "--among")


def test_unreadable_files_are_named(path, tmp_path):
    with pytest.raises(RunError, match=r"cannot read '.*f\.(npz|parquet)': "):
        read_features(path, "--among")
    (tmp_path / "new").mkdir()
    open(path, "wb").write(b"PAR1 PK and no more")
    with pytest.raises(RunError, match=r"cannot read '.*f\.(npz|parquet)': "):
        read_features(path, "--among")


def test_damaged_files_are_named(path):
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    write_features(path, Features([f"{i}.png" for i in range(40)], features))
    content, random = open(path, "rb").read(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in random.integers(len(content), size=random.integers(1, 20)):
            damaged[place] = random.integers(256)
        with open(path, "wb") as file:
            file.write(damaged)
        try:
            read_features(path, "--among")
        except (RunError, UsageError):
            pass


def test_parquet_features_that_are_no_numbers(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    file = str(tmp_path / "f.parquet")
    table = pyarrow.table({"file": ["a"], "features": pyarrow.array([{"x": 1.0}])})
    pyarrow.parquet.write_table(table, file)
    with pytest.raises(RunError, match="cannot read"):
        read_features(file, "--among")


def test_parquet_without_columns_or_pyarrow(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "f.parquet")
    parquet.write_table(pyarrow.table({"file": ["a"]}), path)
    with pytest.raises(UsageError, match="columns 'file' and 'features'; it has no 'features'"):
        read_features(path, "--among")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RunError, match=r"pip install 'flax-resnet\[hf\]'"):
        check_features_path(path)


def test_paths_that_cannot_hold_features(tmp_path):
    with pytest.raises(UsageError, match=r"--among must name a \.npz or .* file, not '.*csv'"):
        check_features_path(str(tmp_path / "f.csv"), "--among")
    (tmp_path / "f.npz").mkdir()
    with pytest.raises(UsageError, match=r"--features must name a file, but .* is a folder"):
        check_features_path(str(tmp_path / "f.npz"))


def test_features_of_another_network_are_refused(monkeypatch):
    monkeypatch.setattr("train.engine.feature_files.checkpoint_fingerprint", lambda *_: "abc")
    run = SimpleNamespace(path="runs/x", step=3, weights="raw")
    run.features = lambda images: np.empty((len(images), 5))
    for network in ("abc-raw", ""):
        check_network(Features(FILES, FEATURES, network), "f.npz", run)
    with pytest.raises(UsageError, match="features of another checkpoint than step 3"):
        check_network(Features(FILES, FEATURES, "abc-ema"), "f.npz", run)
    run.features = lambda images: np.empty((len(images), 6))
    with pytest.raises(UsageError, match=r"'f\.npz' has 5 features of each image, but .* has 6"):
        check_network(Features(FILES, FEATURES, "abc-raw"), "f.npz", run)
