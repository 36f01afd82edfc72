"""Loggers: TensorBoard, MLflow, Weights & Biases, and how failing and slow ones are contained."""

import json
import os
import struct
import threading
import time

import cv2
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from train import Logger
from train.config import loading
from train.config.access import flatten
from train.config.registries import register_logger
from train.reporting.loggers import fan_out, guard
from train.reporting.loggers.fan_out import Loggers
from train.workdir.metrics_log import MetricsLog

ROWS = [
    {"step": 2, "epoch": 0.1, "train/loss": 1 / 3, "images_per_second": 1234.5},
    {"step": 4, "epoch": 0.2, "train/loss": float("nan"), "eval/top1": 0.1 + 0.2, "eval/bad": 1},
    {"step": 6, "epoch": 0.3, "train/loss": 1e-300, "learning_rate": 0},
]
MATRIX = np.array([[7, 1], [0, 2]])
CAPTIONS = ("cat", "a $dog_")


class Output:
    """In place of the console."""

    def __init__(self):
        self.warnings, self.notes = [], []
        self.warn, self.note = self.warnings.append, self.notes.append


@pytest.fixture
def config():
    return loading.default_config()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)


def run(config, workdir, start=0, rows=ROWS, images=None):
    """Log the rows and a result, as a run does; return the messages."""
    output = Output()
    os.makedirs(workdir, exist_ok=True)
    (workdir / "config.json").write_text(loading.to_json(config))
    (workdir / "report.html").write_text("the report")
    with MetricsLog(str(workdir), start) as log, Loggers(config, str(workdir), start, output) as to:
        if images is not None:
            to.samples(images, CAPTIONS)
            to._call("confusion", MATRIX, CAPTIONS, 4)
        for row in rows:
            log.write(row)
            to.log(row)
        to.finish({"top1": 0.5, "step": 6})
    return output


def metrics_of(workdir):
    """Return the points of metrics.jsonl, ``{(name, step): value}``."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {
        (name, row["step"]): value
        for row in map(json.loads, lines)
        for name, value in row.items()
        if name not in ("step", "time") and value is not None
    }


class Failing(Logger):
    def __init__(self, config, workdir):
        pass

    def fail(self, *_):
        raise ValueError("no\nwonder")

    start = log = samples = confusion = finish = close = fail


class FailingFast(Failing):
    in_thread = False


class Exits:
    def __init__(self, config, workdir):
        raise SystemExit(3)


def test_a_logger_that_fails_in_every_method_is_one_warning(config, tmp_path, images):
    received = []

    @register_logger("good")
    class Good:  # need not have all methods
        def __init__(self, config, workdir):
            received.append(workdir)

        def log(self, row):
            received.append(row)

    register_logger("bad", Failing)
    register_logger("fast", FailingFast)
    register_logger("exits", Exits)
    register_logger("none", lambda config, workdir: None)
    config.log.to = ("bad", "fast", "exits", "none", "good")
    output = run(config, tmp_path, images=images)
    assert sorted(w for w in output.warnings) == [
        "logger 'bad' failed in start(): ValueError: no wonder; the run continues",
        "logger 'exits' cannot start: SystemExit: 3; the run continues",
        "logger 'fast' failed in start(): ValueError: no wonder; the run continues",
        "logger 'none' cannot start: its function returned None; the run continues",
    ]
    assert [note.split(" of ")[0] for note in output.notes] == [
        "logger 'bad' missed 3 rows",
        "logger 'fast' missed 3 rows",
    ]
    finite = {name: value for name, value in ROWS[1].items() if name != "train/loss"}
    assert received == [str(tmp_path), ROWS[0], finite, ROWS[2]]


def test_a_logger_cannot_change_what_others_and_the_run_use(config, tmp_path, images):
    results = []

    class Changes(Logger):
        in_thread = False

        def __init__(self, config, workdir):
            config.batch_size = 1

        def log(self, row):
            row["step"] = 0

        def samples(self, images, captions):
            results.append(images.copy())
            images[:] = 0

    for name in ("one", "two"):
        register_logger(name, Changes)
    config.log.to = ("one", "two")
    rows, before = [dict(row) for row in ROWS], images.copy()
    assert not run(config, tmp_path, rows=rows, images=images).warnings
    np.testing.assert_array_equal(results[1], before)
    np.testing.assert_array_equal(images, before)
    assert [row["step"] for row in rows] == [2, 4, 6] and config.batch_size == 128


def test_a_hanging_logger_delays_neither_steps_nor_the_end(config, tmp_path, monkeypatch):
    monkeypatch.setattr(fan_out, "SECONDS_TO_FINISH", 0.2)
    monkeypatch.setattr(guard, "MAX_PENDING", 5)
    event, began = threading.Event(), time.monotonic()

    class Hangs(Logger):
        def start(self, step):
            event.wait(60)

    register_logger("hangs", Hangs)
    config.log.to = ("hangs",)
    rows = [{"step": step, "train/loss": 1.0} for step in range(1, 21)]
    output = run(config, tmp_path, rows=rows)
    event.set()
    assert time.monotonic() - began < 5
    (warning,) = output.warnings
    assert "'hangs' is too slow: 5 calls wait, and further ones are dropped" in warning
    assert output.notes == ["logger 'hangs' missed 20 rows of metrics.jsonl, which has all of them"]


def test_a_missing_library_is_named_before_training(config, tmp_path, monkeypatch):
    class Missing(Logger):
        package = "no_such_library"

    register_logger("missing", Missing)
    config.log.to = ("missing",)
    output = Output()
    Loggers(config, str(tmp_path), 0, output)
    (warning,) = output.warnings
    assert (
        "cannot start: no_such_library is not installed: pip install 'flax-resnet[no_such_library]'"
        in warning
    )


def events(path):
    """Return the events of a file of TensorBoard's records, without their checksums."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_tensorboard_has_all_metrics_images_and_hyperparameters(config, tmp_path, images):
    assert not run(config, tmp_path, images=images).warnings
    (path,) = (tmp_path / "tensorboard").iterdir()
    values = [(event, value) for event in events(path) for value in event.summary.value]
    scalars = {
        (value.tag, event.step): value.simple_value
        for event, value in values
        if value.HasField("simple_value")
    }
    expected = {point: np.float32(value) for point, value in metrics_of(tmp_path).items()}
    assert scalars == expected and len(expected) == 9
    pictures = {(v.tag, event.step): v.image for event, v in values if v.HasField("image")}
    assert set(pictures) == {("samples", 0)}
    texts = {(v.tag, e.step): v.tensor.string_val for e, v in values if v.HasField("tensor")}
    [table] = texts.pop(("eval/confusion/text_summary", 4))
    assert table.decode().count("\n") == 1 + len(MATRIX)
    for picture in pictures.values():
        decoded = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), 1)
        assert decoded.shape[:2] == (picture.height, picture.width) and decoded.std() > 10
    plugin = [v.metadata.plugin_data for _, v in values if v.tag.startswith("_hparams_")]
    assert {p.plugin_name for p in plugin} == {"hparams"}
    started, ended = [HParamsPluginData.FromString(p.content) for p in plugin][1:]
    hparams = started.session_start_info.hparams
    assert hparams["optimizer.weight_decay"].number_value == 1e-4
    assert hparams["model.name"].string_value == "resnet50"
    assert hparams["dataset.std"].string_value == "(0.229, 0.224, 0.225)"
    assert hparams["eval.use_ema"].bool_value and len(hparams) == len(flatten(config))
    assert ended.session_end_info.status == 1  # success


@pytest.mark.parametrize(
    ("task", "metric", "column"),
    [
        ("classification", "", "eval/top1"),
        ("classification", "f1_macro", "eval/f1_macro"),
        ("segmentation", "", "eval/miou"),
        ("multi_label", "", "eval/map"),
    ],
)
def test_tensorboards_table_has_the_metric_of_the_task(config, tmp_path, task, metric, column):
    config.task, config.eval.metric = task, metric
    run(config, tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    [experiment] = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content).experiment
        for event in events(path)
        for value in event.summary.value
        if value.tag == "_hparams_/experiment"
    ]
    columns = [info.name.tag for info in experiment.metric_infos]
    assert columns == [column, "eval/loss", "train/loss"]


def test_resumed_run_invalidates_later_events_of_tensorboard(config, tmp_path):
    run(config, tmp_path)
    run(config, tmp_path, start=4, rows=ROWS[2:])
    first, second = sorted((tmp_path / "tensorboard").iterdir())  # though in the same second
    starts = [e.step for e in events(second) if e.session_log.status == 1]
    assert starts == [5]
    assert [e.step for e in events(first) if e.session_log.status == 1] == [1]


def test_one_that_hangs_at_the_end_leaves_time_to_the_others(config, tmp_path, monkeypatch):
    monkeypatch.setattr(fan_out, "SECONDS_TO_FINISH", 0.5)
    event, closed = threading.Event(), []

    class Hangs(Logger):
        def close(self):
            event.wait(60)

    class Good(Logger):
        def close(self):
            closed.append(True)

    register_logger("hangs", Hangs)
    register_logger("good", Good)
    config.log.to = ("hangs", "good")
    output = run(config, tmp_path)
    event.set()
    assert closed and output.warnings == ["logger 'hangs' has not finished in time"]
    assert not output.notes


@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    """MLflow with a file store in the test's folder, as the working directory."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")


def mlflow_runs(client):
    (experiment,) = [e for e in client.search_experiments() if e.name == "flax-resnet"]
    return client.search_runs([experiment.experiment_id])


def history(client, run):
    """Return all points, ``{(name, step): [values in the order of time]}``."""
    points = {}
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            points.setdefault((name, metric.step), []).append(metric.value)
    return points


def test_mlflow_holds_the_parameters_and_metrics_exactly(config, tmp_path, mlflow):
    config.log.to = ("mlflow",)
    config.model.stage_sizes = tuple(range(1, 1000))
    config.dataset.train_sizes = tuple(range(100, 1100)) * 2  # longer than a parameter may be
    config.freeze = "stem\n*"
    workdir = tmp_path / "runs/one"
    assert not run(config, workdir).warnings
    (logged,) = mlflow_runs(mlflow)
    assert logged.info.run_name == "one" and logged.info.status == "FINISHED"
    values = json.loads((workdir / "config.json").read_text())
    params = logged.data.params
    assert params.keys() == values.keys() and len(values) > 100
    cut = {"dataset.train_sizes"}
    for name in values.keys() - cut:
        is_text = isinstance(values[name], str) and "\n" not in values[name]
        assert (params[name] if is_text else json.loads(params[name])) == values[name]
    for name in cut:
        assert len(params[name]) == 6000 and json.dumps(values[name]).startswith(params[name][:-1])
    assert history(mlflow, logged) == {p: [v] for p, v in metrics_of(workdir).items()}
    artifacts = tmp_path / logged.info.artifact_uri.removeprefix("file://")
    assert json.loads((artifacts / "config.json").read_text()) == values
    assert (artifacts / "report.html").read_text() == "the report"


def test_mlflow_continues_the_run_of_a_resumed_one(config, tmp_path, mlflow, monkeypatch):
    config.log.to = ("mlflow",)
    workdir = tmp_path / "runs/one"
    run(config, workdir)
    with open(workdir / "metrics.jsonl") as file:  # killed before the logger had the row of step 4
        lines = file.read().splitlines()
    lines.insert(1, json.dumps({"step": 3, "train/loss": 0.25}))
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(workdir)  # the store is found from any folder
    config.loader.threads = 3
    again = {**ROWS[2], "images_per_second": 7.0, "epoch": 0.3}
    assert not run(config, workdir, start=4, rows=[again]).warnings
    (logged,) = mlflow_runs(mlflow)
    assert history(mlflow, logged) == {p: [v] for p, v in metrics_of(workdir).items()}
    assert logged.info.status == "FINISHED" and logged.data.params["loader.threads"] == "0"
    assert logged.data.tags["config.loader.threads"] == "3"
    # A run that starts from the beginning is another one, as is one whose run was deleted.
    monkeypatch.chdir(tmp_path)
    run(config, workdir)
    assert len(mlflow_runs(mlflow)) == 2
    for one in mlflow_runs(mlflow):
        mlflow.delete_run(one.info.run_id)
    assert not run(config, workdir, start=4, rows=[again]).warnings
    assert len(mlflow_runs(mlflow)) == 1


def test_wandb_writes_offline_and_continues_its_run(config, tmp_path, images, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    config.log.to = ("wandb",)
    workdir = tmp_path / "one"
    assert not run(config, workdir, images=images).warnings
    (first,) = workdir.glob("wandb/offline-run-*/*.wandb")
    time.sleep(1)  # names of wandb's folders have seconds
    assert not run(config, workdir, start=4, rows=ROWS[2:]).warnings
    assert json.loads((workdir / "wandb_run.json").read_text())["run_id"] in first.stem
    assert {p.stem for p in workdir.glob("wandb/offline-run-*/*.wandb")} == {first.stem}
    assert len(list(workdir.glob("wandb/offline-run-*"))) == 2
    written = first.read_bytes()
    for text in (b"eval/top1", b"0.30000000000000004", b"optimizer.weight_decay", b"a $dog_"):
        assert text in written
    assert list(first.parent.glob("files/media/images/samples*.png"))


def test_only_names_of_loggers_are_valid(config):
    config.log.to = ("tensorboard", "neptune")
    with pytest.raises(Exception, match="'tensorboard' or 'mlflow' or 'wandb'"):
        loading.check_config(config)
