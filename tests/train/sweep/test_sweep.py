"""Sweeps that train: killed, stopped and continued; failing runs; own parts; searches."""

import json
import signal

import numpy as np
import pytest

from tests.train.test_main import final_state, wait_until
from train.config.loading import load_config
from train.loop import train
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest
from train.sweep import runs
from train.sweep.definition import define, run_name
from train.workdir import run_files
from train.workdir.metrics_log import read_rows

RATE = "schedule.learning_rate"
SMALL = [("model.stage_sizes", "1"), ("model.width", "8"), ("dataset.image_size", "8")]
LONG = [
    *SMALL,
    ("num_epochs", "10"),
    ("eval.every_epochs", "5"),
    ("checkpoint.every_epochs", "1"),
]
END = 10 * 22
TINY = [*SMALL, ("num_steps", "4")]

RECIPE = """
import optax
from train import declare_key, default_config, register_schedule
from configs.resnet20_digits import get_config as digits

declare_key("schedule.half_life", 10.0, "Steps in which the rate halves.", minimum=0.1)

@register_schedule("halving")
def halving(schedule, span):
    return optax.exponential_decay(span.peak, schedule.half_life, 0.5)

def get_config():
    config = digits()
    config.schedule.name = "halving"
    config.schedule.half_life = default_config().schedule.half_life
    return config
"""


def sweep(path, definition, trials=None):
    return runs.sweep(definition, str(path), trials, StopRequest())


def starts(path):
    return [session["step"] for session in run_files.read_sessions(str(path))]


def test_a_killed_sweep_continues_as_if_it_had_not_been(commands, data_dir, tmp_path, capsys):
    path, grid = tmp_path / "sweep", f"{RATE}=0.05,0.1"
    overrides = [f"--config.{key}={value}" for key, value in LONG]
    arguments = commands.digits(path, "--grid", grid, "--seeds", "2", *overrides)
    names = [f"learning_rate={rate},seed={seed}" for rate in ("0.05", "0.1") for seed in (0, 1)]

    def start_and_send(number, name):
        process = commands.start("train.sweep", *arguments, devices=4)
        wait_until(process, lambda: run_files.saved_steps(str(path / name)))
        process.send_signal(number)
        return process, *process.communicate(timeout=300)

    start_and_send(signal.SIGKILL, names[1])
    process, _, stderr = start_and_send(signal.SIGTERM, names[2])
    assert process.returncode == 75, stderr
    assert "2 of 4 runs are finished; run the same command to continue" in stderr
    config = [*LONG, ("dataset.data_dir", data_dir)]
    assert sweep(path, define("resnet20_digits", config, [grid], (), 2)) == 0
    out = capsys.readouterr().out
    assert f"run 1 of 4: {names[0]} (finished)" in out

    assert sorted(file.name for file in path.iterdir() if file.is_dir()) == sorted(names)
    assert (starts(path / names[0]), starts(path / names[3])) == ([0], [0])
    for name in names[1:3]:
        first, again = starts(path / name)
        assert first == 0 < again < END
    # The runs that were killed and stopped are those of the single commands.
    single = load_config("resnet20_digits", [*config, (RATE, "0.05"), ("seed", "1")])
    result = train(single, str(tmp_path / "single"), StopRequest())
    expected, state = final_state(tmp_path / "single"), final_state(path / names[1])
    assert expected.keys() == state.keys()
    for leaf, value in expected.items():
        np.testing.assert_array_equal(state[leaf], value, leaf)

    best = json.loads(out.splitlines()[-1])["best"]
    accuracies = {name: read_rows(str(path / name))[-1]["eval/top1"] for name in names}
    assert accuracies[names[1]] == result["top1"]
    means = {0.05: list(accuracies.values())[:2], 0.1: list(accuracies.values())[2:]}
    rate = best["keys"][RATE]
    assert best["top1"] == pytest.approx(np.mean(means[rate]))
    assert best["top1_std"] == pytest.approx(np.std(means[rate], ddof=1))
    assert best["top1"] >= max(map(np.mean, means.values())) - 1e-9
    page = (path / "compare.html").read_text()
    assert all(name in page for name in names) and "Means over seeds" in page


def test_a_failing_run_does_not_end_the_sweep(data_dir, tmp_path, capsys):
    overrides = [*TINY, ("dataset.data_dir", data_dir)]
    grid = [f"{RATE}=1e30,0.05", "batch_size=63,64"]
    definition = define("resnet20_digits", overrides, grid, (), 1)
    assert sweep(tmp_path, definition) == 1
    out, err = capsys.readouterr()
    result = json.loads(out.splitlines()[-1])
    good = "learning_rate=0.05,batch_size=64"
    assert (result["runs"], len(result["failed"])) == (4, 3) and good not in result["failed"]
    assert result["best"]["keys"] == {RATE: 0.05, "batch_size": 64}
    assert "learning_rate=0.05,batch_size=63: config.batch_size=63 does not divide" in err
    assert "learning_rate=1e+30,batch_size=64: the training loss" in err
    with runs.exclusive_lock(str(tmp_path)), pytest.raises(RunError, match="wait until it ends"):
        sweep(tmp_path, definition)


def test_own_parts_and_a_search(data_dir, tmp_path, capsys):
    pytest.importorskip("optuna")
    recipe = tmp_path / "halving.py"
    recipe.write_text(RECIPE)
    overrides = [*TINY, ("dataset.data_dir", data_dir)]
    space = ["schedule.half_life=1.0,5.0"]
    definition = define(str(recipe), overrides, (), space, 1)
    assert sweep(tmp_path / "runs", definition, trials=1) == 0
    capsys.readouterr()
    assert sweep(tmp_path / "runs", definition, trials=2) == 0
    out = capsys.readouterr().out
    assert "run 1 of 2: half_life=" in out and "(finished)" in out
    for path in (tmp_path / "runs").glob("half_life=*"):
        rate = read_rows(str(path))[-1]["learning_rate"]
        assert rate == pytest.approx(0.1 * 0.5 ** (3 / float(path.name.partition("=")[2])))
    recipe.write_text(RECIPE.replace("optax.exponential_decay", "exit(9) or ") + "# changed")
    changed = define(str(recipe), overrides, (), space, 1)
    with pytest.raises(UsageError, match="holds another sweep: checksum of the recipe and"):
        sweep(tmp_path / "runs", changed, trials=2)
    assert sweep(tmp_path / "others", changed, trials=2) == 1  # whatever an own part raises
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["runs"] == len(result["failed"]) > 0


def best_of(tmp_path, grid, top1s, seeds=1, metric="top1", **more):
    """Return the best of a sweep whose finished runs have these results, by order."""
    definition = define("resnet20_digits", [*TINY, ("eval.metric", metric)], grid, (), seeds)
    runner = runs.Runner(definition, str(tmp_path), StopRequest())
    every = [run for one in definition.combinations() for run in definition.with_seeds(one)]
    for index, (settings, top1) in enumerate(zip(every, top1s, strict=True)):
        runner.settings[name := run_name(settings)] = settings
        if top1 is not None:
            others = {key: values[index] for key, values in more.items()}
            runner.results[name] = {"top1": top1, "loss": 1.0} | others
    return runs.best(runner)


@pytest.mark.parametrize("key", ["dataset.fold=1/3,2/3,3/3", "dataset.val_seed=0,1,2"])
def test_the_best_of_folds_is_their_mean(tmp_path, key):
    """No run is named: the best would be that on the easiest images."""
    best = best_of(tmp_path, [f"{RATE}=0.1,0.2", key], [0.9, 0.5, 0.4, 0.7, 0.7, 0.7])
    assert best == {
        "keys": {RATE: 0.2},
        "top1": pytest.approx(0.7),
        "top1_std": pytest.approx(0),
        "runs": 3,
    }
    best = best_of(tmp_path, [key], [0.9, 0.5, 0.4])
    assert best == {
        "keys": {},
        "top1": pytest.approx(np.mean([0.9, 0.5, 0.4])),
        "top1_std": pytest.approx(np.std([0.9, 0.5, 0.4], ddof=1)),
        "runs": 3,
    }
    # Settings that failed on the difficult folds are not the best.
    best = best_of(tmp_path, [f"{RATE}=0.1,0.2", key], [0.9, None, None, 0.7, 0.6, 0.5])
    assert best["keys"] == {RATE: 0.2} and best["runs"] == 3
    best = best_of(tmp_path, [key], [0.9, 0.7, 0.4, 0.6, 0.4, 0.6], seeds=2)
    assert (best["keys"], best["runs"]) == ({}, 6) and best["top1"] == pytest.approx(0.6)
    assert best_of(tmp_path, [key], [None] * 3) is None


@pytest.mark.parametrize(
    ("metric", "values", "rate", "value"),
    [
        ("f1_macro", [0.2, 0.4, 0.1, 0.1], 0.1, 0.3),
        ("mcc", [-0.2, -0.4, -0.1, -0.1], 0.2, -0.1),
        ("loss", [3.0, 1.0, 1.5, 1.5], 0.2, 1.5),
        ("auroc_macro", [0.9, None, 0.6, 0.6], 0.2, 0.6),
    ],
)
def test_the_metric_of_the_runs_decides_about_the_best(tmp_path, metric, values, rate, value):
    given = {"metric": metric, metric: values}
    best = best_of(tmp_path, [f"{RATE}=0.1,0.2"], [0.7, 0.5, 0.9, 0.1], seeds=2, **given)
    assert best["keys"] == {RATE: rate} and best[metric] == pytest.approx(value)


def test_the_best_over_seeds_names_a_run(tmp_path):
    best = best_of(tmp_path, [f"{RATE}=0.1,0.2"], [0.9, 0.5, 0.7, 0.8], seeds=2)
    assert best["keys"] == {RATE: 0.2} and best["seeds"] == 2
    assert best["run"].endswith("learning_rate=0.2,seed=1") and best["run_top1"] == 0.8
    best = best_of(tmp_path, ["seed=4,5"], [0.6, 0.8])
    assert best["keys"] == {"seed": 5} and best["seeds"] == 1
