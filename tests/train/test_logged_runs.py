"""Runs with loggers and a profile, which end in the same bits as a run without."""

import gzip
import importlib.util
import json

import jax
import numpy as np
import pytest

from tests.train.reporting.test_loggers import history, metrics_of, mlflow_runs
from tests.train.test_main import final_state
from train import Logger
from train.config.registries import register_logger
from train.loop import train
from train.runtime.errors import UsageError
from train.runtime.signals import StopRequest

SERVICES = [name for name in ("mlflow",) if importlib.util.find_spec(name)]


@pytest.fixture
def small(digits_config):
    digits_config.model.update(name="resnet20", stage_sizes=(1, 1))
    digits_config.num_steps = 4  # the program of tests/train/test_loop.py
    digits_config.log.every_steps = 2
    digits_config.checkpoint.every_steps = 3
    digits_config.schedule.warmup_epochs = 0
    return digits_config


def test_loggers_and_profile_change_no_bit(small, tmp_path, monkeypatch, capsys):
    """Also one that fails, and one that changes what it gets."""
    calls = []

    class Failing(Logger):
        def log(self, row):
            raise OSError(28, "No space left on device")

    class Recorder(Logger):
        in_thread = False

        def start(self, step):
            calls.append(("start", step))

        def log(self, row):
            calls.append(("log", row.pop("step")))

        def samples(self, images, captions):
            calls.append(("samples", images.shape[1:], len(images) == len(captions)))
            images[:] = 0

        def confusion(self, matrix, class_names, step):
            calls.append(("confusion", int(matrix.sum()), len(class_names), step))

        def finish(self, result):
            calls.append(("finish", result["step"]))

        def close(self):
            calls.append(("close",))

    register_logger("failing", Failing)
    register_logger("recorder", Recorder)
    small.log.to = ()
    small.checkpoint.every_steps = 0
    train(small, str(tmp_path / "without"), StopRequest())
    assert not (tmp_path / "without/tensorboard").exists()
    small.log.to = ("tensorboard", "failing", "recorder", *SERVICES)
    monkeypatch.chdir(tmp_path)  # for mlruns
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    small.log.profile_steps, small.checkpoint.every_steps = (2, 3), 3
    workdir = tmp_path / "with"
    capsys.readouterr()
    train(small, str(workdir), StopRequest())
    output, errors = capsys.readouterr()
    assert errors.count("warning: logger 'failing' failed in log(): OSError") == 1
    (trace,) = (workdir / "profile").rglob("*.trace.json.gz")
    assert len(json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]) > 100
    assert f"profile: steps 2 to 3 in {workdir}/profile" in output
    assert f"steps 2 to 3: {workdir}/profile" in (workdir / "report.html").read_text()
    kept = [call for call in calls if call[0] != "log"]
    assert kept == [
        ("start", 0),
        ("samples", (8, 8, 3), True),
        ("confusion", 360, 10, 4),
        ("finish", 4),
        ("close",),
    ]
    logged = [json.loads(line)["step"] for line in open(workdir / "metrics.jsonl")]
    assert [call[1] for call in calls if call[0] == "log"] == logged == [2, 4]
    jax.tree.map(
        np.testing.assert_array_equal, final_state(workdir), final_state(tmp_path / "without")
    )
    if SERVICES:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")
        (logged,) = mlflow_runs(client)
        assert history(client, logged) == {p: [v] for p, v in metrics_of(workdir).items()}
        values = json.loads((workdir / "config.json").read_text())
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
        assert logged.data.params == texts


@pytest.mark.parametrize("steps", [(3,), (1, 5), (1, 2, 3)])
def test_profile_steps_must_be_two_of_the_run(small, tmp_path, steps):
    small.log.profile_steps = steps
    with pytest.raises(UsageError, match=r"profile_steps must be .* of 1 to 4, such as 1,4; not"):
        train(small, str(tmp_path), StopRequest())
