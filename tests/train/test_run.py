"""The parts of a run: intervals, meter, console, metrics file, pictures, workdir."""

import contextlib
import io
import json
import os
import resource
import sys
import time

import jax
import numpy as np
import pytest
import tqdm

from train.config.loading import default_config
from train.data.prefetch import Prefetcher
from train.engine.devices import Pmap
from train.engine.evaluation import evaluate
from train.engine.intervals import make_intervals
from train.engine.meter import Meter
from train.reporting import plots, run_summary
from train.reporting.console import Console
from train.runtime.errors import RunError, UsageError
from train.workdir import run_files
from train.workdir.metrics_log import MetricsLog, read_rows, to_json


def config_of(**keys):
    config = default_config()
    config.update_from_flattened_dict(keys)
    return config


def test_intervals_in_epochs():
    config = config_of(
        **{"batch_size": 10, "num_epochs": 3.0, "log.every_steps": 7},
        **{"eval.every_epochs": 1.5, "checkpoint.every_epochs": 0.5},
    )
    intervals = make_intervals(config, num_images=105)
    assert (intervals.steps_per_epoch, intervals.num_steps) == (10, 30)
    steps = range(1, 31)
    assert [s for s in steps if intervals.evaluates(s)] == [15, 30]
    assert [s for s in steps if intervals.saves(s)] == [5, 10, 15, 20, 25, 30]
    # Wherever it saves it logs, so that a resumed run averages over the same steps.
    assert [s for s in steps if intervals.logs(s)] == [5, 7, 10, 14, 15, 20, 21, 25, 28, 30]
    assert intervals.epoch(5) == 0.5
    assert "leaves out 5 images (4.8%)" in intervals.describe()


def test_intervals_at_the_end_alone_and_in_steps():
    keys = {"batch_size": 10, "num_steps": 25, "eval.every_epochs": 0.0}
    intervals = make_intervals(config_of(**keys), num_images=100)
    assert intervals.num_steps == 25
    assert [s for s in range(1, 26) if intervals.evaluates(s)] == [25]
    assert "leaves out" not in intervals.describe()
    tiny = config_of(batch_size=10, num_epochs=0.001)
    assert make_intervals(tiny, num_images=100).num_steps == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": 101}, "batch_size=101 is more than the 100 training images"),
        ({"batch_size": 10, "num_epochs": 0.0}, "nothing to train"),
    ],
)
def test_a_intervals_that_cannot_be(keys, message):
    with pytest.raises(UsageError, match=message):
        make_intervals(config_of(**keys), num_images=100)


def test_warnings_of_what_does_not_fit():
    config = config_of(
        **{"batch_size": 10, "num_epochs": 3.0, "schedule.warmup_epochs": 5.0},
        **{"schedule.name": "step", "schedule.milestone_epochs": (2.0, 9.0)},
    )
    intervals = make_intervals(config, 100)
    devices = Pmap()
    first, second, third = run_summary.config_warnings(config, intervals, devices)
    assert "warm-up of 50 steps" in first and "run of 30: it takes 8" in first
    assert "step 90" in second and "ends after 30" in second
    assert f"sees {10 // len(devices)} images at once" in third
    config.schedule.warmup_epochs, config.schedule.name = 0.5, "cosine"
    [unused] = run_summary.config_warnings(config, intervals, Pmap(jax.local_devices()[:1]))
    assert "milestone_epochs and milestone_steps have no effect on schedule.name='cosine'" in unused
    config.schedule.milestone_epochs = ()
    config.sync_batch_norm = True
    assert run_summary.config_warnings(config, intervals, devices) == []


def test_an_absurd_evaluation_is_warned_of(capsys):
    with Console(10) as console:
        run_summary.check_evaluation_loss(console, 2.5, chance=2.3)
        assert capsys.readouterr().out == ""
        run_summary.check_evaluation_loss(console, 13e6, chance=2.3)
        run_summary.check_evaluation_loss(console, float("nan"), chance=2.3)
    absurd, nan = capsys.readouterr().out.splitlines()
    assert "1.3e+07 is far above 2.3," in absurd and "loss nan" in nan


def test_meter_means_over_its_interval_and_tells_throughput_and_waiting():
    began = time.monotonic()
    meter = Meter(batch_size=8, fetch=lambda tree: tree)
    feed = Prefetcher(range(9), lambda _: time.sleep(0.05), depth=1)
    for loss in (1.0, 2.0):
        meter.take(feed)
        time.sleep(0.05)
        meter.add({"loss": loss, "top1": loss / 4, "learning_rate": loss, "nonfinite": 0})
    feed.close()
    row = meter.summary()
    seconds = time.monotonic() - began  # more than slept, where the machine is busy
    assert row["train/loss"] == 1.5 and row["train/top1"] == 0.375 and row["learning_rate"] == 2
    assert 16 / seconds - 0.1 <= row["images_per_second"] <= 16 / 0.15
    assert 0.04 / seconds <= row["input_wait_fraction"] <= 1 - 0.1 / seconds + 0.05
    meter.add({"loss": 5.0, "top1": 1.0, "learning_rate": 3.0, "nonfinite": 0})
    meter.restart_clock()  # what came before is timed no more, but still averaged
    row = meter.summary()
    assert row["train/loss"] == 5 and "images_per_second" not in row


def test_meter_finds_the_first_step_that_was_not_finite_and_leaves_out_what_was_skipped():
    def summary(skips, *metrics):
        meter = Meter(batch_size=8, fetch=lambda tree: tree, skips=skips)
        for steps, loss, nonfinite in metrics:
            means = {"loss": loss, "top1": 0.0, "learning_rate": 1.0, "nonfinite": nonfinite}
            meter.add(means, steps)
        return meter.summary(), meter.first_nonfinite

    nan = float("nan")
    row, first = summary(False, (1, 2.0, 0), (1, nan, 1), (1, nan, 1))
    assert first == 1 and row["nonfinite"] == 2 and np.isnan(row["train/loss"])
    _, first = summary(False, (10, 2.0, 0), (10, nan, 0.7))  # the last seven of the second call
    assert first == 13
    row, first = summary(True, (1, 2.0, 0), (1, 0.0, 1), (1, 4.0, 0))
    assert first == 1 and row["nonfinite"] == 1 and row["train/loss"] == 3
    row, _ = summary(True, (1, 0.0, 1), (1, 0.0, 1))
    assert row["nonfinite"] == 2 and np.isnan(row["train/loss"])
    row, first = summary(True, (1, 2.0, 0))
    assert first is None and "nonfinite" not in row


class Computing:
    """A result that a device has ready some time after the step was sent to it."""

    free = 0.0  # when the device has finished all that was sent

    def __init__(self, seconds):
        Computing.free = max(Computing.free, time.monotonic()) + seconds
        self.ready = Computing.free

    def is_ready(self):
        return time.monotonic() >= self.ready

    def block_until_ready(self):
        time.sleep(max(0, self.ready - time.monotonic()))


@pytest.mark.parametrize(
    ("input_seconds", "step_seconds", "least", "most"),
    [(0.02, 0.04, 0.0, 0.2), (0.04, 0.02, 0.3, 0.7)],
)
def test_only_what_devices_wait_counts(input_seconds, step_seconds, least, most):
    """Steps are sent ahead: the loop waits for images while the device still computes."""
    means = {"loss": 1, "top1": 1, "learning_rate": 1, "nonfinite": 0}
    meter = Meter(batch_size=8, fetch=lambda tree: [means] * 25)
    with Prefetcher(range(99), lambda _: time.sleep(input_seconds)) as feed:
        for _ in range(25):
            meter.take(feed)
            meter.add({"loss": Computing(step_seconds)})
        row = meter.summary()
    assert least <= row["input_wait_fraction"] <= most
    assert meter.input_wait() == pytest.approx(row["input_wait_fraction"], abs=1e-3)


def test_plain_lines_are_few_and_evaluations_always_among_them(capsys):
    with Console(100) as console:
        console.start_clock(0)
        for step in range(10, 101, 10):
            row = {"step": step, "epoch": step / 50, "train/loss": 1.0, "train/top1": 0.5}
            if step in (50, 100):
                row["eval/top1"] = 0.25
            console.progress(row)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 10/100", "step 50/100", "step 100/100"]
    assert "eval top1 25.00%" in lines[1] and "left" in lines[1] and "left" not in lines[2]


def test_metrics_file_forgets_what_a_resumed_run_does_again(tmp_path):
    with MetricsLog(str(tmp_path), start=0) as writer:
        for step in (1, 2, 3):
            writer.write({"step": step, "train/loss": step / 2})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'\xff\xfe\n[1, 2]\n{"a": 1}\n')  # a damaged disk
        file.write(b'{"step": 4, "tra')  # killed while writing
    with MetricsLog(str(tmp_path), start=2) as writer:
        writer.write({"step": 3, "train/loss": float("nan")})
    assert read_rows(str(tmp_path)) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": 1.0},
        {"step": 3, "train/loss": None},
    ]
    with MetricsLog(str(tmp_path), start=0):
        pass
    assert read_rows(str(tmp_path)) == []


@pytest.mark.parametrize("start", [0, 2])
def test_a_folder_in_the_metrics_place_is_told(tmp_path, start):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"cannot (read|write) .*metrics\.jsonl: Is a directory$"):
        MetricsLog(str(tmp_path), start)


def test_a_line_that_a_kill_cut_short_costs_no_other(tmp_path):
    run_files.add_session(str(tmp_path), step=0, num_steps=9, batch_norm_images=8)
    with open(tmp_path / "sessions.jsonl", "ab") as file:
        file.write(b'"no session"\n{"step": 10, "\xff')
    for step in (20, 30):
        run_files.add_session(str(tmp_path), step, num_steps=90, batch_norm_images=8)
    assert [session["step"] for session in run_files.read_sessions(str(tmp_path))] == [0, 20, 30]


def test_an_error_while_compiling_begins_a_line(capsys):
    with pytest.raises(RunError), Console(10) as console:
        console.compiling()
        raise RunError
    with Console(10) as console:
        console.compiling()
        console.warn("a bad image")
        console.compiled()
    with Console(10) as console:
        console.compiling()
        console.compiled()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["compiling…", "compiling…", "warning: a bad image"]
    assert [line.partition("done in")[0] for line in lines[3:]] == ["compiling… "] * 2


def test_of_several_processes_compiling_is_a_whole_line(capsys, monkeypatch):
    """Which a thread that ends the process, where another is lost, need not finish."""
    monkeypatch.setattr("train.runtime.distributed.process_count", lambda: 2)
    with Console(10) as console:
        console.compiling()
        assert capsys.readouterr().out == "compiling…\n"


def test_rows_are_json_whatever_they_hold():
    row = {"step": 3, "loss": float("inf"), "top1": 0.5}
    assert json.loads(to_json(row)) == {"step": 3, "loss": None, "top1": 0.5}


def test_pictures_of_any_class_names_and_none_that_ends_a_run(tmp_path):
    warned = []
    pictures = plots.Plots(str(tmp_path), warned.append)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    pictures.draw_samples(lambda: (images, ("$\\frac$", "cost_$5 and_$^", "$\\frac$")))
    assert (tmp_path / "samples.png").stat().st_size > 1000 and not warned
    plots.Plots(str(tmp_path / "gone"), warned.append).update(force=True)
    assert len(warned) == 1 and "cannot draw curves.png: FileNotFoundError" in warned[0]


def test_curves_show_what_was_written(tmp_path):
    with MetricsLog(str(tmp_path), start=0) as writer:
        for step in range(1, 30):
            writer.write({"step": step, "train/loss": 3 / step, "train/top1": 0.1})
    plots.draw_curves(str(tmp_path))
    few = (tmp_path / "curves.png").read_bytes()
    with MetricsLog(str(tmp_path), start=29) as writer:
        writer.write({"step": 30, "eval/loss": 1.0, "eval/top1": 0.9, "learning_rate": 0.1})
    plots.draw_curves(str(tmp_path))
    assert (tmp_path / "curves.png").read_bytes() != few


def test_a_workdir_without_checkpoints_takes_another_configuration(tmp_path):
    path = str(tmp_path / "run")
    run_files.check(path, default_config())
    assert not os.path.exists(path)
    run_files.create(path, default_config())
    other = config_of(seed=3)
    run_files.check(path, other)  # nothing was learned yet
    os.makedirs(tmp_path / "run" / "checkpoints" / "7")
    run_files.check(path, default_config())
    with pytest.raises(UsageError, match="seed was 0, is now 3"):
        run_files.check(path, other)
    os.remove(tmp_path / "run" / "config.json")
    with pytest.raises(RunError, match=r"has checkpoints, but no config\.json: put it back .* or "):
        run_files.check(path, other)
    os.mkdir(tmp_path / "run" / "config.json")
    with pytest.raises(RunError, match=r"cannot read \S*config.json: Is a directory; put it back"):
        run_files.check(path, other)


@pytest.mark.parametrize(
    ("name", "take"),
    [
        ("config.json", lambda path: run_files.create(path, default_config())),
        ("trainer.lock", lambda path: run_files.exclusive_lock(path, print).__enter__()),
    ],
)
def test_the_file_that_cannot_be_written_is_named(tmp_path, name, take):
    with limited_files(0):
        with pytest.raises(RunError, match=rf"cannot write {tmp_path}/{name}: File too large"):
            take(str(tmp_path))


@contextlib.contextmanager
def limited_files(size):
    """As under ``ulimit -f``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"optimzer.name": "sgd"}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"cannot read .*config\.json"):
        run_files.read_config(str(tmp_path))


def test_no_top5_of_five_classes_or_fewer():
    class Source:
        class_names = ("a", "b", "c", "d", "e")

    class Five:
        source = Source

        def __len__(self):
            return 6

        def eval_batches(self, batch_size):
            yield {"valid": np.arange(batch_size) < 6}

    devices = Pmap()

    def step(state, data, batch, stop):
        ones = devices.replicate({"examples": np.int32(6), "bad": np.int32(0), "top1": np.int32(3)})
        return ones | devices.replicate({"top5": np.int32(6), "loss": np.float32(9)})

    result = evaluate(devices, step, None, None, Five(), batch_size=7)
    assert result == {"examples": 6, "top1": 0.5, "loss": 1.5}
    Source.class_names += ("f",)
    assert evaluate(devices, step, None, None, Five(), batch_size=7)["top5"] == 1
    Five.__len__ = lambda self: 7
    with pytest.raises(AssertionError, match="6 examples and left out 0 of 7"):
        evaluate(devices, step, None, None, Five(), batch_size=7)


@pytest.mark.parametrize("has_bar", [False, True])
def test_a_run_goes_on_where_nobody_reads_it(has_bar, monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with Console(num_steps=3) as console:
            if has_bar:
                console.bar = tqdm.tqdm(total=3, file=io.StringIO())
            console.info("one")
            console.compiling()
            console.compiled()
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and "the run goes on" in told[0] and "Broken pipe" in told[0]
