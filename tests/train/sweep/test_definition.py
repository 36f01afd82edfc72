"""What a sweep varies: values, names of runs, and the folder of another sweep."""

import itertools
import json

import pytest

from train.runtime.errors import RunError, UsageError
from train.sweep.definition import Range, define, is_in, parse_space, parse_values, run_name, write

RATE = "schedule.learning_rate"


def sweep(*grid, space=(), seeds=1, overrides=()):
    return define("resnet20_digits", list(overrides), grid, space, seeds)


@pytest.mark.parametrize(
    "key, text, values",
    [
        (RATE, "0.02,0.05", (0.02, 0.05)),
        (RATE, "1e-3", (0.001,)),
        ("optimizer.nesterov", "True,False", (True, False)),
        ("optimizer.name", "sgd,adamw", ("sgd", "adamw")),
        ("freeze", "stem*,head;backbone", ("stem*,head", "backbone")),
        ("model.stage_sizes", "1,1,1;2,2,2", ((1, 1, 1), (2, 2, 2))),
        ("model.stage_sizes", "1,1,1", ((1, 1, 1),)),
        ("augment.color_jitter", "0,0,0,0;0.4,0.4,0.4,0", ((0, 0, 0, 0), (0.4, 0.4, 0.4, 0))),
    ],
)
def test_values(key, text, values):
    assert parse_values(key, text) == values


@pytest.mark.parametrize(
    "key, text, values",
    [
        (RATE, "log:0.01..0.5", Range(0.01, 0.5, True)),
        (RATE, "-0..1", Range(0, 1, False)),
        ("batch_size", "16..64", Range(16, 64, False)),
        ("batch_size", "16,64", (16, 64)),
        ("freeze", "..", ("..",)),
    ],
)
def test_space(key, text, values):
    assert parse_space(key, text) == values


@pytest.mark.parametrize(
    "grid, words",
    [
        (("schedule.learning_rat=1",), "did you mean config.schedule.learning_rate?"),
        (("schedule.learning_rate",), "--grid needs KEY=VALUES, not 'schedule.learning_rate'"),
        (("schedule.learning_rate=0.1,x",), "must be a number, not 'x'"),
        (("schedule.learning_rate=",), "must be a number, not ''"),
        (("schedule.learning_rate=0.1,0.10",), "include '0.1' twice"),
        (("batch_size=8", "batch_size=9"), "config.batch_size is given twice"),
        (("num_epochs=1,2",), "config.num_epochs is given twice"),
        (("loader.threads=1,2",), "config.loader.threads does not affect what is learned"),
        (("smoke=True,False",), "config.smoke does not affect"),
        (("seed=1,2",), "config.seed is varied by --seeds already"),
    ],
)
def test_a_wrong_grid_is_refused(grid, words):
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        sweep(*grid, seeds=2, overrides=[("num_epochs", "2")])


@pytest.mark.parametrize(
    "space, words",
    [
        (f"{RATE}=0.5..0.1", "the second must be larger"),
        (f"{RATE}=log:0..0.1", "the first must be above 0"),
        ("batch_size=8..x", "must be an integer, not 'x'"),
        ("batch_size=8..9.5", "must be an integer, not 9.5"),
        ("optimizer.nesterov=0..1", "is no number"),
        ("model.stage_sizes=1..2", "is no number"),
        ("dataset.fold=1/2,2/2", "would choose the easiest images to evaluate; vary it by --grid"),
        ("dataset.val_seed=0..9", "would choose the easiest images"),
    ],
)
def test_a_wrong_space_is_refused(space, words):
    with pytest.raises(UsageError, match=words):
        sweep(space=(space,))


def test_the_runs_are_the_product_of_the_values():
    made = sweep(f"{RATE}=0.02,0.05", "config.batch_size=32,64", seeds=2, overrides=[("seed", "5")])
    runs = [run for one in made.combinations() for run in made.with_seeds(one)]
    expected = itertools.product((0.02, 0.05), (32, 64), (5, 6))
    assert [tuple(run.values()) for run in runs] == list(expected)
    assert {tuple(run) for run in runs} == {(RATE, "batch_size", "seed")}
    config = made.config(runs[-1])
    assert (config.schedule.learning_rate, config.batch_size, config.seed) == (0.05, 64, 6)
    assert config.model.name == "resnet20"


@pytest.mark.parametrize(
    "settings, name",
    [
        ({RATE: 0.02, "seed": 1}, "learning_rate=0.02,seed=1"),
        ({"model.stage_sizes": (1, 2), RATE: 1e-05}, "stage_sizes=1-2,learning_rate=1e-05"),
        ({"model.name": "x", "optimizer.name": "y"}, "model.name=x,optimizer.name=y"),
        ({"optimizer.nesterov": True}, "nesterov=True"),
    ],
)  # fmt: skip
def test_names_of_runs(settings, name):
    assert run_name(settings) == name


def test_names_are_file_names_and_unique():
    texts = ["a/b", "a_b", "a b", "../x", "ä", "x" * 300, "x" * 301, ""]
    names = [run_name({"init_from": text}) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(name.isascii() and "/" not in name and len(name) < 200 for name in names)


def test_a_folder_keeps_its_sweep(tmp_path):
    path = str(tmp_path)
    made = sweep(f"{RATE}=0.02,0.05", seeds=2)
    assert not is_in(path, made)
    write(path, made)
    assert is_in(path, made)
    assert is_in(path, sweep(f"{RATE}=0.020,0.05", seeds=2, overrides=[("loader.threads", "1")]))
    for other, words in (
        (sweep(f"{RATE}=0.02,0.07", seeds=2), "rate was .'0.02', '0.05'., is now .'0.02', '0.07'"),
        (sweep(f"{RATE}=0.02,0.05", seeds=3), r"seeds was \[0, 1\], is now \[0, 1, 2\]"),
        (sweep("batch_size=8,9", seeds=2), "--grid batch_size was not there, is now"),
        (
            sweep(f"{RATE}=0.02,0.05", seeds=2, overrides=[("num_epochs", "4")]),
            "holds another sweep: config.num_epochs was 20.0, is now 4.0. Use the same",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            is_in(path, other)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(RunError, match="restore the file"):
        is_in(path, made)


def test_a_run_is_no_place_for_a_sweep(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a run"):
        is_in(str(tmp_path), sweep(f"{RATE}=1,2"))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), "there is nothing to vary; give --grid, --seeds or --search"),
        (("--seeds", "0"), "--seeds must be at least 1, not 0"),
        (("--space", "batch_size=8..9"), "add --search optuna"),
        (("--seeds", "2", "--trials", "3"), "add --search optuna"),
        (("--search", "optuna", "--space", "batch_size=8..9"), "--search needs --space"),
        (("--search", "optuna", "--grid", "batch_size=8,9"), "--grid and --search exclude"),
        (
            ("--seeds", "2", "--coordinator=h:1", "--num_processes=2", "--process_id=0"),
            "a sweep runs in a single process",
        ),
    ],
)
def test_wrong_flags_are_refused(commands, arguments, words):
    process = commands.call("train.sweep", "--config", "resnet20_digits", *arguments)
    assert process.returncode == 2 and words in process.stderr, process.stderr


def test_a_sweep_is_json(tmp_path):
    made = sweep(space=(f"{RATE}=log:0.01..0.5", "optimizer.name=sgd,lars"))
    write(str(tmp_path), made)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content[f"--space {RATE}"] == "log:0.01..0.5"
    assert content["--space optimizer.name"] == ["sgd", "lars"]
    assert "config.optimizer.name" not in content and content["config.batch_size"] == 64
