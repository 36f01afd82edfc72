"""Tables of labels in the commands: evaluation, plans, changed tables."""

import csv
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import sklearn.metrics

from train.compare.comparison import as_text, compare_runs
from train.compare.cross_validation import cross_validations
from train.compare.runs import read
from train.config.keys import DATA_KEYS, KEYS
from train.config.loading import default_config, load_config
from train.data.datasets import open_source
from train.data.images import encode_png
from train.data.loader import DataLoader
from train.engine.other_data import OtherData
from train.loop import train
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest
from train.tasks.task import Task
from train.workdir import run_files


@pytest.fixture(scope="module")
def digits_table(digits_run, tmp_path_factory):
    """A table of the digits' test images."""
    folder = tmp_path_factory.mktemp("table")
    source = open_source(run_files.read_config(digits_run).dataset, "test")
    with open(folder / "digits.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "label", "site"))
        for index in range(len(source)):
            image, label = source.decode(index)
            (folder / f"{index}.png").write_bytes(encode_png(image))
            rows.writerow((f"{index}.png", source.class_names[label], "AB"[index % 2]))
    return folder / "digits.csv"


def evaluated(commands, digits_run, output, *flags):
    result = commands.call("train.evaluate", "--workdir", digits_run, "--output", output, *flags)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_evaluation_on_a_table_equals_that_on_the_run_s_own_data(
    commands, digits_run, digits_table, tmp_path
):
    own, _ = evaluated(commands, digits_run, tmp_path / "own")
    table = ("--labels", digits_table)
    other, _ = evaluated(commands, digits_run, tmp_path / "table", *table)
    assert other["dataset"] == "table" and other["split"] == "all"
    assert other["examples"] == own["examples"]
    np.testing.assert_allclose([other["top1"], other["loss"]], [own["top1"], own["loss"]], 1e-5)

    # A table without some of the classes, and with a wrong row.
    rows = digits_table.read_text().splitlines()
    few = [rows[0], *(row for row in rows[1:] if row.split(",")[1] in "123"), "none.png,1,A"]
    (digits_table.parent / "few.csv").write_text("\n".join(few))
    table = ("--dataset", "table", "--labels", digits_table.parent / "few.csv")
    result, stderr = evaluated(commands, digits_run, tmp_path / "few", *table)
    assert result["examples"] == len(few) - 2
    assert f"line {len(few)}: no file 'none.png'" in stderr


def test_other_tables_for_evaluation(digits_table, tmp_path):
    (tmp_path / "split.csv").write_text("image,label,split\na,b,val\n")

    def applied(other, **keys):
        dataset = default_config().dataset
        dataset.update({"name": "folder", "data_dir": "/own", "group_pattern": "(x)"} | keys)
        return other.apply(dataset), dataset

    split, dataset = applied(OtherData(labels=str(tmp_path / "split.csv")))
    assert (split, dataset.name, dataset.data_dir) == ("test", "table", "")
    assert dataset.group_pattern == "" and OtherData(labels="x").is_other_dataset
    split, dataset = applied(OtherData(labels=str(digits_table), data_dir="/d"))
    assert (split, dataset.data_dir) == ("all", "/d")
    own = {"name": "table", "labels": str(digits_table), "split_key": "site"}
    assert (
        applied(
            OtherData(labels=str(tmp_path / "split.csv"), dataset="table"),
            **own | {"split_key": "split"},
        )[0]
        == "test"
    )
    assert applied(OtherData(data_dir="/d"), **own)[0] == "test"
    with pytest.raises(UsageError, match="--dataset table needs --labels"):
        applied(OtherData(dataset="table"))


def test_a_run_is_not_resumed_with_a_changed_table(digits_table, tmp_path):
    config = default_config()
    config.dataset.update(name="table", labels=str(digits_table), image_size=8)

    def loaders():
        splits = (config.dataset.train_split, True), (config.dataset.eval_split, False)
        return [DataLoader(config, split, training) for split, training in splits]

    run_files.describe(str(tmp_path), config, *loaders(), Task(None, None, {}).describe())
    run_files.check_data(str(tmp_path), *loaders())
    rows = digits_table.read_text().splitlines()
    image, label, site = rows[5].split(",")
    rows[5] = f"{image},{(int(label) + 1) % 10},{site}"
    config.dataset.labels = str(digits_table.parent / "changed.csv")
    (digits_table.parent / "changed.csv").write_text("\n".join(rows))
    with pytest.raises(RunError, match=r"have changed since|had .* images"):
        run_files.check_data(str(tmp_path), *loaders())
    description = json.loads((tmp_path / "run.json").read_text())
    del description["records"]  # as in runs of older versions
    (tmp_path / "run.json").write_text(json.dumps(description))
    assert run_files.read_description(str(tmp_path)).records == {}


@pytest.fixture(scope="session")
def fold_runs(tmp_path_factory):
    """Runs of a few steps on three folds of a table with groups."""
    folder = tmp_path_factory.mktemp("folds")
    rows = ["image,label,group"]
    for i in range(30):
        pixels = (
            np.full((8, 8), 20 + 100 * (i % 2), np.uint8) + np.arange(8, dtype=np.uint8) * i // 9
        )
        (folder / f"{i}.png").write_bytes(encode_png(pixels))
        rows.append(f"{i}.png,{['dark', 'light'][i % 2]},patient {i // 2 % 12}")
    (folder / "t.csv").write_text("\n".join(rows))
    runs = []
    for number in (1, 2, 3):
        config = load_config("resnet20_digits")
        config.dataset.update(name="table", labels=str(folder / "t.csv"), fold=f"{number}/3")
        config.dataset.image_size = 8
        config.model.stage_sizes, config.batch_size, config.num_steps = (1, 1), 8, 6
        config.schedule.warmup_epochs = 0
        runs.append(str(folder / f"run{number}"))
        train(config, runs[-1], StopRequest())
    return runs


def test_the_held_out_images_of_folds_are_listed_and_evaluated(fold_runs, commands, tmp_path):
    listed = []
    for number, run in enumerate(fold_runs, 1):
        with open(f"{run}/held_out.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        predictions = tmp_path / f"{number}.csv"
        output = ("--output", tmp_path / str(number), "--predictions", predictions)
        result = commands.call("train.evaluate", "--workdir", run, *output)
        assert json.loads(result.stdout.splitlines()[-1])["split"] == "held_out", result.stderr
        with open(predictions, newline="") as file:
            evaluated = [(row["image"], row["label"]) for row in csv.DictReader(file)]
        assert evaluated == [(row["image"], row["label"]) for row in rows]
        listed.append(rows)
        _check_stored(run, predictions)
    assert sorted(int(row["image"][:-4]) for rows in listed for row in rows) == list(range(30))
    groups = [{row["group"] for row in rows} for rows in listed]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12


def _check_stored(run, predictions):
    """Check that the run's own predictions are those of train.evaluate."""
    with np.load(f"{run}/held_out.npz") as stored, open(predictions, newline="") as file:
        rows = list(csv.DictReader(file))
        best = stored["probabilities"].argmax(axis=1)
        assert [stored["class_names"][i] for i in best] == [row["predicted"] for row in rows]
        np.testing.assert_allclose(
            stored["probabilities"].max(axis=1), [float(row["probability"]) for row in rows], 1e-4
        )
        np.testing.assert_allclose(stored["probabilities"].sum(axis=1), 1, 1e-5)


def test_folds_are_compared_as_a_cross_validation(fold_runs, commands, tmp_path):
    runs = [read(run) for run in fold_runs]
    (validation,) = cross_validations(runs)
    assert (validation.folds, validation.images, validation.remark) == (3, 30, "")

    label, predicted, light, loss = [], [], [], 0
    for run in fold_runs:
        with np.load(f"{run}/held_out.npz") as stored:
            labels, probabilities = stored["label"], stored["probabilities"]
            label += labels.tolist()
            predicted += probabilities.argmax(axis=1).tolist()
            light += probabilities[:, 1].tolist()
            loss -= np.log(probabilities[np.arange(len(labels)), labels]).sum()
    expected = {
        "eval/top1": sklearn.metrics.accuracy_score(label, predicted),
        "eval/balanced_accuracy": sklearn.metrics.balanced_accuracy_score(label, predicted),
        "eval/auroc_macro": sklearn.metrics.roc_auc_score(label, light),
        "eval/f1_macro": sklearn.metrics.f1_score(label, predicted, average="macro"),
    }
    for name, value in expected.items():
        assert validation.pooled[name] == pytest.approx(value, abs=1e-9), name
    assert validation.pooled["eval/loss"] == pytest.approx(loss / 30, rel=1e-4)

    output = ("--output", tmp_path / "folds.html")
    result = commands.call("train.compare", *fold_runs, *output)
    assert result.returncode == 0, result.stderr
    accuracies = [100 * run.results["eval/top1"] for run in runs]
    mean = f"{np.mean(accuracies):.2f} % ± {np.std(accuracies, ddof=1):.2f} %"
    lines = [line for line in result.stdout.splitlines() if "3 of 3" in line or "pooled" in line]
    assert mean in lines[-2] and f"{100 * expected['eval/top1']:.2f} %" in lines[-1]
    assert "all 30 held-out images" in (tmp_path / "folds.html").read_text()

    few = commands.call("train.compare", *fold_runs[1:], *output)
    assert "2 of 3" in few.stdout and "all 20 held-out images" in few.stdout


def test_folds_of_other_data_are_not_pooled(fold_runs, tmp_path):
    copies = [shutil.copytree(run, tmp_path / str(i)) for i, run in enumerate(fold_runs)]

    def remark(path=copies[1]):
        runs = [read(str(copy)) for copy in copies]
        (validation,) = cross_validations(runs)
        assert validation.pooled == {} and "not pooled" in as_text(compare_runs(runs))
        return validation.remark

    shutil.copy(copies[0] / "held_out.npz", copies[1] / "held_out.npz")
    assert re.match(r"10 images are held out in several of the runs.*\.png", remark())
    with np.load(copies[0] / "held_out.npz") as stored:
        arrays = dict(stored)
    for name, value in (
        ("label", arrays["label"] - 1),
        ("label", arrays["label"].astype(float)),
        ("predicted", arrays["predicted"] + 2),
        ("probabilities", arrays["probabilities"][:, 0]),
        ("probabilities", arrays["probabilities"] * np.nan),
        ("file", arrays["file"][:-1]),
        ("label", np.array([None])),
    ):
        with zipfile.ZipFile(copies[1] / "held_out.npz", "w") as archive:
            for key, array in (arrays | {name: value}).items():
                with archive.open(f"{key}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array)
        assert "held_out.npz" in remark()
    (copies[1] / "held_out.npz").unlink()
    assert "held_out.npz does not exist" in remark()


def test_a_fold_is_neither_resumed_as_another_nor_with_another_table(fold_runs, tmp_path):
    config = run_files.read_config(fold_runs[0])
    config.dataset.fold = "2/3"
    with pytest.raises(UsageError, match=r"dataset.fold was '1/3', is now '2/3'"):
        run_files.check(fold_runs[0], config)


def test_keys_of_the_data_are_keys():
    assert {f"dataset.{key}" for key in DATA_KEYS} <= KEYS.keys()
