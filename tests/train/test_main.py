"""The commands as users run them: real processes, data and checkpoints."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from train.engine.experiment import make_model, make_step_config
from train.engine.step import abstract_state, create_state
from train.workdir import run_files
from train.workdir.checkpoints import Checkpoints
from train.workdir.metrics_log import read_rows


def last_json(process):
    return json.loads(process.stdout.splitlines()[-1])


def initial_state(path):
    """Return the leaves of the state before the first step, by name."""
    config = run_files.read_config(str(path))
    step_config = make_step_config(config, make_model(config, 10), 1, 1)
    return named(create_state(step_config, (8, 8, 3)))


def final_state(path, step="last"):
    """Return the leaves of a checkpoint, by name."""
    config = run_files.read_config(str(path))
    step_config = make_step_config(config, make_model(config, 10), 1, 1)
    template = abstract_state(step_config, (8, 8, 3))
    return named(Checkpoints(str(path)).restore(step, template))


def named(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(where): np.asarray(leaf) for where, leaf in leaves}


def wait_until(process, condition):
    """Wait until ``condition()`` is true while the process runs."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if condition():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    raise AssertionError("timed out after 300 s")


def has_done(path, step):
    """Return a condition: metrics of ``step`` or a later step are written."""
    return lambda: any(row["step"] >= step for row in read_rows(str(path)))


SHORT = (
    "--config.dataset.image_size=8",
    "--config.model.stage_sizes=1,1,1",
    "--config.num_epochs=3",
    "--config.eval.every_epochs=1",
    "--config.checkpoint.every_epochs=1",
    "--config.log.every_steps=4",  # does not divide the 22 steps of an epoch
)


@pytest.fixture(scope="module")
def run(commands, tmp_path_factory):
    """Three epochs on the digits: the workdir and the finished process."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    process = commands.run("train.main", *commands.digits(path, *SHORT))
    assert process.returncode == 0, process.stderr
    return path, process


def test_last_line_is_the_final_evaluation(run):
    path, process = run
    result = last_json(process)
    metrics = ["balanced_accuracy", "f1_macro", "kappa", "mcc", "auroc_macro"]
    metrics += ["average_precision_macro", "baseline"]
    assert list(result) == ["split", "examples", "top1", "top5", "loss", *metrics, "step"]
    assert result["split"] == "test" and result["examples"] == 360 and result["step"] == 66
    assert 0.25 < result["top1"] <= result["top5"] <= 1
    assert read_rows(str(path))[-1]["eval/top1"] == result["top1"]


def test_console_output(run):
    out, err = run[1].stdout, run[1].stderr
    assert "cannot" not in err
    summary, _, rest = out.partition("compiling…")
    assert all(len(line) <= 80 for line in (summary + err).splitlines())
    facts = " ".join(summary.split())
    for text in (
        "data: digits, 10 classes, images of 8×8, in device memory",
        "training: 1,437 images of 'train'",
        "evaluated: 360 images of 'test'; always answering '3' gets 10.3 %",
        "classes: 0: 143 (10.0 %), 1: 146 (10.2 %), ",
        "network: resnet20, 75,290 parameters, float32",
        "devices: 1 cpu device, 64 images each",
        "length: 66 steps of 64 images, 22 per epoch, 3 epochs",
        "each epoch leaves out 29 images (2.0 %)",
        "rate: 0.1 after a warm-up of 16 steps, cosine",
        f"workdir: {run[0]} (new)".replace("/", ""),
    ):
        assert text in (facts if "/" in text else facts.replace("/ ", "").replace("/", "")), text
    assert "left\n" in rest and "images/s" in rest
    assert "note: warm-up shortened from 110 to 16 steps, at most 25 % of a run of 66" in err
    assert "note: " not in out and "warning: " not in out


def test_last_lines_show_the_result_and_where_to_look_next(run):
    path, process = run
    lines, result = process.stdout.splitlines(), last_json(process)
    heads = [line.partition(":")[0] for line in lines[-6:-1]]
    assert heads == ["result", "baseline", "report", "evaluate", "predict"]
    assert f"top-1 {100 * result['top1']:.2f} % on 360 images of 'test' (95 % interval" in lines[-6]
    assert "10.28 % by always answering '3'" in lines[-5]
    assert lines[-4].endswith(f"{path}/report.html")
    assert lines[-3].endswith(f"python -m train.evaluate --workdir {path}")


def test_workdir_files(run):
    path = run[0]
    described = json.loads((path / "run.json").read_text())
    assert described["class_names"] == [str(digit) for digit in range(10)]
    assert described["preprocessing"]["image_size"] == 8
    assert described["versions"]["jax"]
    assert json.loads((path / "config.json").read_text())["num_epochs"] == 3
    assert (path / "curves.svg").read_text().startswith("<svg")
    assert (path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert list((path / "tensorboard").glob("events*"))
    rows = read_rows(str(path))
    # Every 4 steps after an evaluation; the last 2 before the next one are merged into its row.
    ends = [epoch + step for epoch in (0, 22, 44) for step in (4, 8, 12, 16, 22)]
    assert [row["step"] for row in rows] == ends
    assert {
        "step", "epoch", "train/loss", "train/top1", "learning_rate", "images_per_second",
        "input_wait_fraction",
    } <= set(rows[-1])  # fmt: skip
    assert [row["step"] for row in rows if "eval/top1" in row] == [22, 44, 66]
    assert all(0 <= row["input_wait_fraction"] < 0.5 for row in rows)


@pytest.mark.parametrize("devices", [1, 4])
def test_evaluate_reproduces_the_evaluation_of_training(
    run, commands, tmp_path, monkeypatch, devices
):
    path, process = run
    trained = last_json(process)
    monkeypatch.chdir(tmp_path)
    arguments = ("train.evaluate", "--workdir", path, "--step", "last")
    if devices == jax.local_device_count():
        again = commands.call(*arguments)
    else:
        again = commands.run(*arguments, devices=devices, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    evaluated = last_json(again)
    assert evaluated.pop("loss") == pytest.approx(trained["loss"], rel=1e-5)
    assert evaluated == {key: value for key, value in trained.items() if key != "loss"}


def test_evaluate_a_given_step(run, commands):
    path, _ = run
    rows = {row["step"]: row for row in read_rows(str(path))}
    best = max((row["eval/top1"], step) for step, row in rows.items() if "eval/top1" in row)[1]
    result = last_json(commands.call("train.evaluate", "--workdir", path, "--step", "best"))
    assert result["step"] == best and result["top1"] == rows[best]["eval/top1"]
    result = last_json(commands.call("train.evaluate", "--workdir", path, "--step", "22"))
    assert result["step"] == 22 and result["top1"] == rows[22]["eval/top1"]


def test_same_command_on_a_finished_run_evaluates_it(run, commands):
    path, process = run
    before = final_state(path)
    rows = read_rows(str(path))
    again = commands.run("train.main", *commands.digits(path, *SHORT))
    assert again.returncode == 0, again.stderr
    assert last_json(again) == last_json(process)
    assert "continues after step 66" in " ".join(again.stdout.split())
    assert read_rows(str(path)) == rows
    assert all((after == before[name]).all() for name, after in final_state(path).items())


def test_signal_saves_and_exits_with_75(run, commands, tmp_path):
    number = signal.SIGTERM  # test_torture.py covers others
    path = tmp_path / "stopped"
    arguments = commands.digits(path, *SHORT, "--config.checkpoint.every_epochs=0")
    process = commands.start("train.main", *arguments)
    wait_until(process, has_done(path, 4))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 75, stderr
    assert f"{number.name} after step" in stderr and "Traceback" not in stdout + stderr
    saved = Checkpoints(str(path)).steps()
    assert saved and f"after step {saved[-1]}" in stderr


def test_signal_before_the_first_step_exits_with_75(commands, tmp_path):
    process = commands.start("train.main", *commands.digits(tmp_path / "run", *SHORT))
    wait_until(process, (tmp_path / "run").exists)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 75 and "SIGTERM" in stderr, stderr


def test_another_configuration_in_the_same_workdir_is_refused(run, commands):
    path, _ = run
    before = sorted((p.name, p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file())
    process = commands.call(
        "train.main", *commands.digits(path, *SHORT, "--config.optimizer.momentum=0.5")
    )
    assert process.returncode == 2
    assert "optimizer.momentum was 0.9, is now 0.5" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    after = sorted((p.name, p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file())
    assert after == before


def test_relative_folders_are_resolved(run, commands, tmp_path):
    config = commands.root / "configs" / "resnet20_digits.py"
    shutil.copytree(commands.data_dir, tmp_path / "däta dir")
    flags = ("--config.dataset.data_dir=däta dir", "--config.num_steps=2", *SHORT[:2])
    process = commands.run("train.main", "--config", config, *flags, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(tmp_path)) == ["däta dir", "runs"]
    path = os.path.join("runs", "resnet20_digits")
    again = commands.run("train.evaluate", "--workdir", f"../{path}", cwd=tmp_path / "däta dir")
    assert last_json(again) == last_json(process)
    assert not (tmp_path / "däta dir" / "däta dir").exists()


def test_neutral_keys_may_differ(run, commands):
    """Also, a corrupt ``run.json`` is rewritten."""
    path, process = run
    description = (path / "run.json").read_text()
    (path / "run.json").write_text(description[:100])
    one_line(
        commands.call("train.evaluate", "--workdir", path), 1, "run.json", "train.main rewrites"
    )
    overrides = (*SHORT, "--config.checkpoint.max_to_keep=7", "--config.parallel=shard_map")
    again = commands.run("train.main", *commands.digits(path, *overrides))
    assert again.returncode == 0, again.stderr
    assert last_json(again)["top1"] == last_json(process)["top1"]
    assert "run.json" in again.stderr and (path / "run.json").read_text() == description


def test_four_devices_train(commands, tmp_path):
    arguments = commands.digits(tmp_path / "run", *SHORT, "--config.num_steps=30")
    process = commands.run("tests.without_report", *arguments, devices=4)
    assert process.returncode == 0, process.stderr
    assert "devices:   4 cpu devices" in process.stdout
    result = last_json(process)
    assert result["examples"] == 360 and result["top1"] > 0.12


def one_line(process, status, *words):
    assert process.returncode == status, process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.optimzer.name=adam"], ["config.optimzer.name", "config.optimizer.name"]),
        (["--config.batch_size=big"], ["config.batch_size", "an integer", "'big'"]),
        (["--config.batch_size"], ["needs a value"]),
        (["--config.augment.hflip", "--config.seed=1"], ["config.augment.hflip needs a value"]),
        (["--workdir", ""], ["--workdir is empty"]),
        (["--confg=x"], ["--confg=x", "--help"]),
        (["--config.batch_size=2000"], ["batch_size=2000", "1,437 training images"]),
        (["--config.model.name=resnt20"], ["resnt20", "did you mean 'resnet20'"]),
        (["--config.model.num_classes=3"], ["num_classes=3", "10 classes"]),
        (["--config.dataset.train_split=trian"], ["no images in the split 'trian'", "train"]),
    ],
)
def test_usage_errors_are_one_line(commands, tmp_path, arguments, words):
    """The first one runs as a process, as a user would run it."""
    start = commands.run if "optimzer" in arguments[0] else commands.call
    process = start("train.main", *commands.digits(tmp_path / "run", *arguments))
    one_line(process, 2, *words)
    assert not (tmp_path / "run").exists()


def test_batch_must_divide_among_devices(commands, tmp_path):
    arguments = commands.digits(tmp_path / "run", "--config.batch_size=66")
    one_line(commands.call("train.main", *arguments), 2, "66", "4 devices", "64")


def test_missing_config_file(commands):
    process = commands.run("train.main", "--config", "configs/resnet20_digit.py")
    one_line(process, 2, "configs/resnet20_digit.py", "resnet20_digits.py")


def test_config_flag_is_required(commands):
    one_line(commands.run("train.main"), 2, "--config")


def test_missing_imagenet_data(commands, tmp_path):
    began = time.monotonic()
    process = commands.call(
        *("train.main", "--config", "configs/resnet50_imagenet.py", "--workdir", tmp_path / "run"),
        f"--config.dataset.data_dir={tmp_path}",
    )
    one_line(process, 1, "imagenet2012", str(tmp_path), "train.prepare", "ILSVRC2012_img_train.tar")
    assert time.monotonic() - began < 30
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir(commands, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = commands.digits(tmp_path / "file" / "run", "--config.num_steps=1")
    one_line(commands.call("train.main", *arguments), 1, "cannot write", str(tmp_path / "file"))


def test_evaluate_without_a_run(commands, tmp_path):
    process = commands.call("train.evaluate", "--workdir", tmp_path)
    one_line(process, 1, "holds no run", "config.json")
    assert os.listdir(tmp_path) == []


def test_evaluate_a_missing_step(run, commands):
    process = commands.call("train.evaluate", "--workdir", run[0], "--step", "23")
    one_line(process, 2, "no step 23", "22, 44, 66")
    process = commands.call("train.evaluate", "--workdir", run[0], "--step", "newest")
    one_line(process, 2, "'newest'")


def test_help_lists_the_keys(commands):
    process = commands.run("train.main", "--help")
    assert process.returncode == 0
    assert "--config.batch_size=128" in process.stdout
