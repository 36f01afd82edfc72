"""Failures, signals, initial weights and freezing in whole runs."""

import json
import os
import shutil
import signal
from contextlib import ExitStack

import jax
import numpy as np
import pytest

from flax_resnet import create_model, init_variables, load_weights, save_weights
from tests.train.test_main import final_state
from tests.train.workdir.test_checkpoints import flip
from train import loop
from train.data.augment.mixup import Targets
from train.engine.experiment import build_experiment
from train.engine.pretrained import initial_variables
from train.reporting import samples
from train.reporting.console import Console
from train.runtime import host
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest
from train.tasks.task import Task
from train.workdir import environment, run_files
from train.workdir.checkpoints import Checkpoints


@pytest.fixture
def small(digits_config):
    digits_config.model.update(name="resnet20", stage_sizes=(1, 1))
    digits_config.num_steps = 4
    digits_config.eval.every_epochs = 2 / 22  # every second step
    digits_config.checkpoint.every_epochs = 0
    digits_config.schedule.warmup_epochs = 0
    return digits_config


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_failing_evaluation_saves_the_state(small, tmp_path, monkeypatch):
    def evaluate(*arguments):
        raise RunError("3 of the 9 images cannot be decoded")

    monkeypatch.setattr(loop, "evaluate", evaluate)
    with pytest.raises(RunError, match="3 of the 9"):
        loop.train(small, str(tmp_path), StopRequest())
    assert saved_steps(tmp_path) == [2]
    # The two steps are less than a window; they are saved for the next row.
    window = json.loads((tmp_path / "checkpoints/2/metrics_window.json").read_text())
    assert rows(tmp_path) == [] and window["steps"] == 2


def test_saves_by_steps_and_by_minutes(small, tmp_path):
    small.eval.every_epochs, small.checkpoint.max_to_keep = 0, 9
    small.checkpoint.every_steps = 3
    loop.train(small, str(tmp_path / "steps"), StopRequest())
    assert saved_steps(tmp_path / "steps") == [3, 4]
    small.checkpoint.every_steps, small.checkpoint.every_minutes = 0, 1e-9
    loop.train(small, str(tmp_path / "minutes"), StopRequest())
    assert saved_steps(tmp_path / "minutes") == [1, 2, 3, 4]


def test_an_extended_run_is_bit_identical_to_one_of_full_length(small, tmp_path):
    small.schedule.update(name="step", warmup_steps=1, milestone_steps=(2, 5), gamma=0.5)
    small.ema.decay, small.augment.mixup, small.model.drop_path = 0.9, 0.2, 0.1
    for steps, workdir in ((4, "extended"), (7, "extended"), (7, "full")):
        small.num_steps = steps
        result = loop.train(small, str(tmp_path / workdir), StopRequest())
        assert result["step"] == steps
    full, extended = (final_state(tmp_path / workdir) for workdir in ("full", "extended"))
    assert full[".step"] == 7 and full.keys() == extended.keys()
    assert [key for key in full if not np.array_equal(full[key], extended[key])] == []
    evaluated = [row for row in rows(tmp_path / "extended") if "eval/loss" in row]
    assert [row["step"] for row in evaluated] == [2, 4, 6, 7]
    assert evaluated[-1]["eval/loss"] == rows(tmp_path / "full")[-1]["eval/loss"]


@pytest.mark.parametrize(
    ("steps", "keys", "reason"),
    [
        (8, {"name": "cosine"}, "learning rates would have been others"),
        (8, {"name": "step"}, "learning rates would have been others"),  # at fractions of the run
        (8, {"name": "constant", "warmup_steps": 9}, "learning rates would have been others"),
        (3, {"name": "constant"}, "it is saved after 4 already"),
    ],
)
def test_a_run_whose_length_would_change_its_steps_is_not_extended(
    small, tmp_path, monkeypatch, steps, keys, reason
):
    small.schedule.update(keys)
    workdir = tmp_path / "run"
    run_files.create(str(workdir), small)
    os.makedirs(workdir / "checkpoints" / "4")
    small.num_steps = steps
    monkeypatch.setattr(environment, "_program", lambda: ["python", "-m", "train.main"])
    old = ["--config", "a b", "--workdir", "run", "--config.init_from", "x", "--config.seed=0"]
    monkeypatch.setattr("sys.argv", ["main.py", *old])
    with pytest.raises(UsageError, match=reason) as error:
        build_experiment(small, str(workdir))
    assert f"holds a run of 4 steps, which cannot become one of {steps}:" in str(error.value)
    assert str(error.value).endswith(
        "python -m train.main --config 'a b' --config.seed=0"
        f" --workdir={workdir}_2 --config.init_from={workdir}"
    )


def test_each_start_is_recorded_with_its_environment(small, tmp_path):
    small.num_steps = 1
    for _ in range(2):
        loop.train(small, str(tmp_path), StopRequest())
    one, other = run_files.read_sessions(str(tmp_path))
    assert (one["step"], other["step"]) == (0, 1)
    assert one["devices"] == jax.device_count() and one["processes"] == 1
    assert one["versions"]["jax"] == jax.__version__ and one["platform"] == "cpu"
    assert one["batch_norm_images"] == small.batch_size // jax.device_count()
    revision = environment.git()
    assert revision is None or len(revision["revision"]) == 40


def test_deterministic_keeps_existing_xla_flags(monkeypatch):
    given = "--xla_gpu_deterministic_ops=false --xla_dump_to=x"
    monkeypatch.setenv("XLA_FLAGS", given)
    host.use_deterministic_ops()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == given.split()
    assert flags[2:] == ["--xla_gpu_exclude_nondeterministic_ops=true"]


def test_signal_during_an_evaluation_saves_at_once(small, tmp_path, monkeypatch):
    stop = StopRequest()
    evaluate, evaluations = loop.evaluate, []

    def interrupted(*arguments):
        stop.signal = signal.SIGTERM
        evaluations.append(evaluate(*arguments))
        return evaluations[-1]

    monkeypatch.setattr(loop, "evaluate", interrupted)
    with pytest.raises(loop.Interrupted, match="SIGTERM after step 2; everything is saved"):
        loop.train(small, str(tmp_path), stop)
    assert evaluations == [None] and saved_steps(tmp_path) == [2]
    monkeypatch.undo()
    loop.train(small, str(tmp_path), StopRequest())  # the interrupted evaluation is repeated
    assert [row["step"] for row in rows(tmp_path) if "eval/top1" in row] == [2, 4]
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.has_metrics(2) and checkpoints.has_metrics(4)


def test_mixup_rejects_an_odd_batch_before_writing(small, tmp_path):
    small.augment.mixup = 0.2
    small.batch_size = 9 * jax.local_device_count()
    with pytest.raises(UsageError, match="share of the batch, 9, is odd"):
        loop.train(small, str(tmp_path / "run"), StopRequest())
    assert not (tmp_path / "run").exists()


def test_captions_of_mixed_images_name_both_classes_with_weights():
    names = ("cat", "dog", "a bird of paradise")
    label, other = np.array([0, 1, 1, 2]), np.array([1, 0, 1, 0])
    targets = Targets(label, other, np.float32([0.8, 0.3, 0.5, 1.0]))
    task = Task(None, None, {})
    assert samples.captions(targets, names, task) == [
        "cat 80 %\ndog 20 %",
        "cat 70 %\ndog 30 %",
        "dog",
        "a bird of paradise",
    ]
    assert samples.captions(Targets(label), names, task)[:2] == ["cat", "dog"]


def train_one_step(config, workdir):
    """Train one step at a learning rate of zero; return the saved variables."""
    config.num_steps = 1
    config.schedule.learning_rate = 0.0
    config.optimizer.weight_decay = 0.0
    loop.train(config, str(workdir), StopRequest())
    return load_weights(create_model("resnet20", stage_sizes=(1, 1), num_classes=10), workdir)


def test_init_from_a_file_with_another_number_of_classes(small, tmp_path, capsys):
    model = create_model("resnet20", stage_sizes=(1, 1), num_classes=7)
    variables = init_variables(model, 5, (8, 8, 3))
    save_weights(model, variables, tmp_path / "w.safetensors")
    small.init_from = str(tmp_path / "w.safetensors")
    params = train_one_step(small, tmp_path / "run")["params"]
    for name, module in variables["params"].items():
        if name != "head":
            jax.tree.map(np.testing.assert_array_equal, params[name], module)
    assert params["head"]["kernel"].shape == (32, 10)
    assert "weights: " in capsys.readouterr().out


def test_init_from_weights_for_other_channels_is_refused(small, tmp_path):
    model = create_model("resnet20", stage_sizes=(1, 1), num_classes=10)
    save_weights(model, init_variables(model, 5, (8, 8, 1)), tmp_path / "w.safetensors")
    small.init_from = str(tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="images with 1 channels, and cannot be adapted to 3"):
        loop.train(small, str(tmp_path / "run"), StopRequest())


def test_head_is_kept_if_the_classes_are_the_same(small, tmp_path):
    first = train_one_step(small, tmp_path / "first")
    small.init_from, small.seed = str(tmp_path / "first"), 3
    again = train_one_step(small, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, again["params"], first["params"])

    described = json.loads((tmp_path / "first/run.json").read_text())
    described["class_names"][0] = "another"
    (tmp_path / "first/run.json").write_text(json.dumps(described))
    fresh = train_one_step(small, tmp_path / "fresh")["params"]
    assert not np.array_equal(fresh["head"]["kernel"], first["params"]["head"]["kernel"])
    np.testing.assert_array_equal(
        fresh["stem_conv"]["kernel"], first["params"]["stem_conv"]["kernel"]
    )


def test_init_from_a_corrupt_checkpoint_is_refused(small, digits_run, tmp_path):
    copy, model = tmp_path / "copy", create_model("resnet20", stage_sizes=(1,) * 3, num_classes=10)
    shutil.copytree(digits_run, copy)
    folder = copy / "checkpoints"
    os.rename(folder / "44", other := tmp_path / "other")
    shutil.copytree(other, folder / "44")

    def begun(source):
        small.init_from = str(source)
        return initial_variables(small, model, (8, 8, 3), ())["params"]["stem_conv"]["kernel"]

    whole = begun(copy)
    np.testing.assert_array_equal(begun(other), whole)
    for step in (folder / "44", other):
        flip(max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size))
    for source in (copy, folder, folder / "44", folder / "44" / "default", other):
        with pytest.raises(RunError, match=r"cannot read the checkpoint .*checksum differs"):
            begun(source)
    assert not np.array_equal(begun(folder / "22"), whole)
    (folder / "44" / "manifest.json").unlink()
    with pytest.raises(RunError, match="it is incomplete"):
        begun(copy)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("runs/../nowhere.pth", "there is no file or folder 'runs/../nowhere.pth'"),
        ("train/typo", "there is no file or folder 'train/typo'"),  # train/ is a folder here
        ("resnet20.a1_in1k", "is no file, and timm/resnet20.a1_in1k could not be downloaded"),
        ("LICENSE", "config.init_from='LICENSE'"),
    ],
)
def test_init_from_missing_weights_is_refused(small, tmp_path, source, message):
    small.init_from = source
    with pytest.raises(RunError, match=message) as caught:
        loop.train(small, str(tmp_path / "run"), StopRequest())
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_frozen_modules_stay_unchanged(small, tmp_path):
    """Parameters and batch statistics are bit-identical after steps with decay and saving."""
    model = create_model("resnet20", stage_sizes=(1, 1), num_classes=10)
    variables = init_variables(model, 5, (8, 8, 3))
    save_weights(model, variables, tmp_path / "w.safetensors")
    small.update(init_from=str(tmp_path / "w.safetensors"), freeze="stem*, stage1*")
    small.eval.every_epochs = 0
    loop.train(small, str(tmp_path / "run"), StopRequest())
    learned = load_weights(model, tmp_path / "run")
    for collection, modules in variables.items():
        for name, module in modules.items():
            same = jax.tree.leaves(jax.tree.map(np.array_equal, learned[collection][name], module))
            frozen = name.startswith(("stem", "stage1"))
            assert all(same) if frozen else not any(same), (collection, name)


def test_head_that_cannot_be_kept_is_an_error(small, tmp_path):
    model = create_model("resnet20", stage_sizes=(1, 1), num_classes=7)
    save_weights(model, init_variables(model, 5, (8, 8, 3)), tmp_path / "w.safetensors")
    small.update(init_from=str(tmp_path / "w.safetensors"), init_head="keep")
    with pytest.raises(UsageError, match="has no head with 10 classes"):
        loop.train(small, str(tmp_path / "run"), StopRequest())


def test_nan_evaluation_loss_ends_the_run(small, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"examples": 9, "top1": 0.1, "loss": np.nan})
    with pytest.raises(RunError, match="the evaluation loss became nan by step 2; nothing was"):
        loop.train(small, str(tmp_path), StopRequest())
    assert saved_steps(tmp_path) == []


def test_workdir_used_meanwhile_by_another_trainer_is_refused(small, tmp_path):
    """Another run that saved after build_experiment() checked the workdir is not overwritten."""
    experiment = build_experiment(small, str(tmp_path))
    loop.train(small, str(tmp_path), StopRequest())
    before = (tmp_path / "config.json").stat().st_mtime_ns
    with ExitStack() as stack, Console(4) as console:
        with pytest.raises(RunError, match=r"another trainer has used .* meanwhile"):
            loop.open_workdir(experiment, stack, console)
    assert (tmp_path / "config.json").stat().st_mtime_ns == before
