"""Property test: whatever the files of a run contain, commands end with one line, not a traceback.

``HYPOTHESIS_EXAMPLES=5000`` tries that many other examples.
"""

import base64
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flax_resnet import load_run
from flax_resnet.weights import WeightsError, manifest
from train.engine import run_evaluation
from train.engine.experiment import make_model, make_step_config
from train.reporting import evaluation_results
from train.reporting.report import run_report
from train.runtime.errors import RunError, UsageError
from train.workdir import run_files
from train.workdir.metrics_log import MetricsLog

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", 0))
NAMES = (
    *("config.json", "run.json", "sessions.jsonl", "session_ends.jsonl", "metrics.jsonl"),
    *("report.json", "manifest"),
)
SECONDS = 120  # for all commands; they take less than one


class Page(HTMLParser):
    """A parser that checks that a page runs no script and loads nothing."""

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "iframe", "object", "form", "base")
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "action", "style"):
                # "#": another place of the page.
                assert name == "style" or value.startswith(("#", "data:"))
                assert "url(" not in value


odd_numbers = [10**400, -(10**30), 2**63, 1e308, float("nan"), float("inf"), -1, 0, 0.5, 1e-320]
odd_texts = [
    *("", "\ud800", "a\0b", "1", "x" * 100_000, "../../x", "\u202e\x1b[31m", "object", "resnet50"),
    *("https://a.b/c.png", "data:image/svg+xml,<svg/>", '"><script src="https://a.b">', "tfds:a:b"),
]
odd_objects = [True, None, [], {}, [[]], [1] * 1000, {str(i): i for i in range(2000)}]
json_values = st.sampled_from([*odd_numbers, *odd_texts, *odd_objects]) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
odd_contents = [
    *(b"", b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b"{}\0", b"\xff\xfe", b"{", b"null"),
    *(b'{"step": 1, "step": 2}', b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"1e400"),
    *(b'{"step": ' + b"9" * 400 + b', "eval/top1": 1e400}\n', b"[]," * 100_000),
]
contents = st.binary(max_size=20) | st.sampled_from(odd_contents)


@pytest.fixture(scope="module")
def evaluated(digits_run):
    return dataclasses.replace(run_evaluation.evaluate_run(digits_run, "last"), variables=None)


@pytest.fixture(scope="module")
def try_commands(evaluated, digits_run, commands):
    """Return a function that runs all commands on a folder and checks how they end."""

    def evaluate_again(path, *_, **__):
        """Read the files as the original does, but compute nothing."""
        config = run_files.read_config(path)
        run_evaluation.limit_to_machine(config.loader)
        make_step_config(config, make_model(config, 10), 1, 1)
        run_files.check_data(path, evaluated.loader)
        return evaluated

    def resume(path):
        run_files.check(path, evaluated.config)
        run_files.find_description(path)
        with MetricsLog(path, 22):
            pass
        run_files.add_session(path, 22, 44, 64)
        run_report.LiveReport(path, lambda _: None).update(force=True)

    def finish(command, *arguments):
        done = commands.call(command, *arguments)
        assert done.returncode in (0, 1, 2), done.stderr
        assert all(
            line.startswith(("error: ", "warning: ", "note: ")) for line in done.stderr.splitlines()
        )

    def run(path):
        path = str(path)
        for call in (load_run, resume):
            with contextlib.suppress(RunError, UsageError, WeightsError):
                call(path)
        page = os.path.join(path, "compare.html")
        finish("train.compare", path, "--output", page)
        finish("train.evaluate", "--workdir", path)
        for name in (page, os.path.join(path, "report.html")):
            if os.path.exists(name):
                Page().feed(Path(name).read_text("utf-8"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_evaluation, "evaluate_run", evaluate_again)
        patch.setattr(evaluation_results, "write_results", lambda *_: [])  # reads no file
        yield run


@pytest.fixture
def run_copy(digits_run, tmp_path):
    """Return a function that makes a new copy of the run."""

    def copy():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return Path(shutil.copytree(digits_run, tmp_path / "run"))

    return copy


@pytest.fixture(autouse=True)
def time_limit():
    def late(*_):
        raise AssertionError(f"the commands took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def file_in(run, name):
    return run / "checkpoints" / "44" / "manifest.json" if name == "manifest" else run / name


def places(value, path=()):
    """Yield the paths of all values in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else items:
        yield from places(one, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def mutate(content, name, data):
    """Return a file with some values of its JSON replaced, or all of it."""
    if data.draw(st.integers(0, 4)) == 0:
        return data.draw(contents)
    lines = content.splitlines() if name.endswith(".jsonl") else [content]
    index = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[index])
    for _ in range(data.draw(st.integers(1, 2))):
        paths = list(places(value))
        value = changed(value, data.draw(st.sampled_from(paths)), data.draw(json_values))
    if name == "manifest" and isinstance(value, dict):
        value.pop("crc32", None)
        value["crc32"] = zlib.crc32(json.dumps(value, sort_keys=True).encode())
    lines[index] = json.dumps(value).encode()
    return b"\n".join(lines) + b"\n"


@given(data=st.data(), name=st.sampled_from(NAMES))
@settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_commands_end_with_one_line(run_copy, try_commands, data, name):
    run = run_copy()
    path = file_in(run, name)
    path.write_bytes(mutate(path.read_bytes(), name, data))
    signal.alarm(SECONDS)
    try_commands(run)
    signal.alarm(0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device"])
def test_commands_do_not_wait_for_other_kinds_of_files(run_copy, try_commands, name, kind):
    run = run_copy()
    path = file_in(run, name)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    signal.alarm(SECONDS)
    try_commands(run)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("run.json", {"preprocessing": {"image_size": "8"}}, "preprocessing.image_size must be an"
         " integer from 1 to 4,096, not '8'"),
        ("run.json", {"preprocessing": {"resize": 3}}, "preprocessing: resize, 3, is less than"),
        ("run.json", {"preprocessing": {"std": [0, 1, 1]}}, r"preprocessing.std\[0\] must be"),
        ("run.json", {"class_names": list(range(10))}, r"class_names\[0\] must be text of"),
        ("run.json", {"probabilities": "softplus"}, "probabilities must be 'softmax' or 'sigmoid',"
         " not 'softplus'; correct those of the run's own loss or task"),
        ("run.json", {"images": {"test": -1}}, "images.test must be an integer from 0 to"),
        ("config.json", {"model.width": 10**30}, "model.width must be an integer from 0 to 65,536"),
        ("config.json", {"model.dtype": "object"}, "model.dtype must be 'float32' or"),
        ("config.json", {"model.stage_sizes": [1000] * 9}, "at most 1,000 blocks"),
        ("config.json", {"model.width": 4096}, "44 is of another network"),
        ("config.json", {"model.num_classes": 3}, "3 outputs cannot have 10 class names"),
    ],
)  # fmt: skip
def test_load_run_names_file_and_field(run_copy, name, change, message):
    run = run_copy()
    content = json.loads((run / name).read_text())
    for key, value in change.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    (run / name).write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=message) as error:
        load_run(run)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": "64"}, "config.batch_size must be an integer, not '64'"),
        ({"schedule.learning_rate": 10**400}, "learning_rate must be a number.*, not 1000"),
        ({"dataset.image_size": 10**6}, "image_size must be at most 4096"),
        ({"loader.workers": -1}, "workers must be at least 0"),
        ({"dataset.data_dir": "a\0"}, "data_dir must be text .*, not"),
        ({"optimizer.nam": "sgd"}, "did you mean config.optimizer.name"),
    ],
)
def test_config_is_checked_like_a_command_line(run_copy, commands, change, message):
    run = run_copy()
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(RunError, match=rf"cannot read .*config\.json: .*{message}"):
        run_files.read_config(str(run))
    done = commands.call("train.predict", "--workdir", run, __file__)
    assert done.returncode == 1 and re.search(f"^error: .*{message}", done.stderr)
    assert done.stderr.count("\n") == 1


def test_evaluation_of_a_run_uses_no_more_threads_than_the_machine_has(run_copy):
    run = run_copy()
    content = json.loads((run / "config.json").read_text())
    content |= {"loader.threads": 10**6, "loader.cache_on_device": "never"}
    (run / "config.json").write_text(json.dumps(content))
    loader = run_evaluation.evaluate_run(str(run), "last").loader
    assert loader._threads <= os.cpu_count() + 1


def test_evaluation_is_limited_by_data_and_machine(evaluated, monkeypatch):
    config = evaluated.config.copy_and_resolve_references()
    config.loader.threads, config.loader.workers = 10**9, 10**9
    config.loader.device_cache_gib, config.loader.cache_on_device = 1e9, "always"
    run_evaluation.limit_to_machine(config.loader)
    assert config.loader.workers <= os.cpu_count() and config.loader.threads <= os.cpu_count() + 1
    assert config.loader.device_cache_gib == 2 and config.loader.cache_on_device == "auto"
    config.eval.batch_size = 2**50
    assert run_evaluation.make_batch_sizes(config, 8, 361).eval == 368
    monkeypatch.setattr(run_evaluation, "core_count", lambda: 1)
    run_evaluation.limit_to_machine(config.loader)
    assert config.loader.threads >= 1 and config.loader.workers == 1


def test_damaged_report_is_rebuilt(run_copy, commands):
    run = run_copy()
    cell = {"image": "https://a.b/c.png", "caption": "c"}
    text = json.dumps({"samples": {"small": True, "cells": [cell]}})
    (run / "report.json").write_text(text)
    warnings = []
    assert run_report.read_parts(str(run), warnings.append) == {}
    [warning] = warnings
    assert "report.json: samples.cells[0].image must be an image as a data URI" in warning
    cell["image"] = f"data:image/png;base64,{base64.b64encode(b'x').decode()}"
    (run / "report.json").write_text(json.dumps({"samples": {"small": True, "cells": [cell]}}))
    assert run_report.read_parts(str(run), warnings.append)["samples"]["cells"] == (
        cell | {"heat": None},
    )


def test_report_warns_of_damaged_lines_and_unreadable_files(run_copy):
    run, warnings = run_copy(), []
    run_report.write_report(str(run), warn=warnings.append)
    assert warnings == []
    for name in ("metrics.jsonl", "sessions.jsonl"):
        with open(run / name, "ab") as file:
            file.write(b"damaged\n")
    run_report.write_report(str(run), warn=warnings.append)
    (run / "sessions.jsonl").unlink()
    (run / "sessions.jsonl").mkdir()
    run_report.write_report(str(run), warn=warnings.append)
    skipped = "skipped 1 damaged line"
    assert [re.sub("^.*/", "", warning) for warning in warnings] == [
        f"metrics.jsonl: {skipped}",
        f"sessions.jsonl: {skipped}",
        f"metrics.jsonl: {skipped}",
        "sessions.jsonl: Is a directory",
    ]


def test_manifest_lists_only_files_in_its_folder(tmp_path):
    (tmp_path / "step").mkdir()
    (tmp_path / "outside").write_bytes(b"")
    os.mkfifo(tmp_path / "step" / "pipe")
    for name in ("../outside", "pipe", str(tmp_path / "outside")):
        content = {"metrics": {}, "files": {name: [0, 0]}}
        content["crc32"] = zlib.crc32(json.dumps(content, sort_keys=True).encode())
        (tmp_path / "step" / manifest.FILE).write_text(json.dumps(content))
        with pytest.raises(ValueError, match="is missing"):
            manifest.verify(str(tmp_path / "step"))
