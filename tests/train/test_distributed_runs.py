"""Runs of several processes on one machine, which are stopped, killed and resumed."""

import json
import signal

import numpy as np
import pytest

from flax_resnet.weights import manifest
from tests.conftest import free_port
from tests.train.runtime.processes import ended
from tests.train.stored_predictions import check_metrics
from tests.train.test_main import final_state, has_done, initial_state, last_json, wait_until
from train.workdir.metrics_log import read_rows
from train.workdir.run_files import read_sessions, saved_steps

# Batches divisible by 1, 2 and 3 devices, and batch statistics over the global batch.
TINY = (
    "--config.dataset.image_size=8",
    "--config.model.stage_sizes=1,1",
    "--config.sync_batch_norm=True",
    "--config.batch_size=48",
    "--config.num_steps=80",
    "--config.schedule.warmup_epochs=0",
    "--config.schedule.learning_rate=0.002",  # so that rounding hardly grows
    "--config.eval.every_epochs=0",
    "--config.checkpoint.every_epochs=0",
    "--config.checkpoint.every_steps=10",
    "--config.log.every_steps=5",
    "--config.eval.metrics=top3",
)


@pytest.fixture(scope="module")
def start_all(commands):
    """Start one process for each list of arguments; kill them at the end."""
    started = []

    def start(*arguments, module="tests.without_report"):
        where = ("--coordinator", f"localhost:{free_port()}", "--num_processes", len(arguments))
        run = [
            commands.start(module, *own, *where, "--process_id", process)
            for process, own in enumerate(arguments)
        ]
        started.extend(run)
        return run

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def story(commands, start_all, tmp_path_factory):
    """One run in five sessions, and uninterrupted runs to compare it with.

    On 2 processes, the first killed; on 2, stopped; on 3, the last killed; on 1, stopped; on 3 to
    the end. Those on 3 use shard_map.

    Returns its workdir, that of an uninterrupted run of a single process, and the results of each
    session by name. ``two`` holds two states of 2 processes at the step where they were stopped:
    of this run, and of an uninterrupted one.
    """
    path = tmp_path_factory.mktemp("runs") / "together"
    single, two = path.parent / "single", path.parent / "two"
    arguments = commands.digits(path, *TINY)
    shard_map = (*arguments, "--config.parallel=shard_map")
    parts = {}

    uninterrupted = commands.run("tests.without_report", *commands.digits(single, *TINY))
    assert uninterrupted.returncode == 0, uninterrupted.stderr

    def start_and_wait(count):
        before = len(read_sessions(path))
        run = start_all(*[arguments if count < 3 else shard_map] * count)
        wait_until(run[0], lambda: len(read_sessions(path)) > before and saved_steps(path))
        wait_until(run[0], has_done(path, saved_steps(path)[-1] + 5))
        return run

    def kill(victim, count):
        run = start_and_wait(count)
        run[victim].kill()
        parts[f"{victim} of {count} killed"] = [
            result for process, result in enumerate(ended(run)) if process != victim
        ]

    kill(0, 2)  # the one that writes
    run = start_and_wait(2)
    run[1].send_signal(signal.SIGTERM)
    parts["stopped"] = ended(run)
    at = parts["stopped at"] = saved_steps(path)[-1]
    parts["two"] = [final_state(path)]

    uninterrupted = (*commands.digits(two, *TINY), f"--config.checkpoint.every_steps={at}")
    run = start_all(uninterrupted, uninterrupted)
    wait_until(run[0], lambda: manifest.exists(two / "checkpoints" / str(at)))
    for process in run:
        process.kill()
    parts["two"].append(final_state(two, at))

    kill(2, 3)

    before = len(read_sessions(path))
    one = commands.start("tests.without_report", *arguments)
    wait_until(one, lambda: len(read_sessions(path)) > before)
    wait_until(one, has_done(path, saved_steps(path)[-1] + 5))
    one.send_signal(signal.SIGTERM)
    parts["one"] = ended([one])

    parts["done"] = ended(start_all(*[shard_map] * 3, module="train.main"))
    return path, single, parts


@pytest.fixture(scope="module")
def evaluated(story, commands, tmp_path_factory):
    """The result of a calibrating evaluation of the run by a single process."""
    path, _, _ = story
    output = tmp_path_factory.mktemp("evaluated")
    done = commands.call("train.evaluate", "--workdir", path, "--calibrate", "--output", output)
    return last_json(done)


def test_a_signal_to_one_stops_all_at_the_same_step(story):
    _, _, parts = story
    for status, _, stderr in parts["stopped"]:
        assert status == 75, stderr
        assert f"after step {parts['stopped at']}; everything is saved" in stderr
    assert "SIGTERM after" in parts["stopped"][1][2]
    assert "a signal to another process after" in parts["stopped"][0][2]


@pytest.mark.parametrize("part", ["0 of 2 killed", "2 of 3 killed"])
def test_if_a_process_is_killed_the_others_exit_with_a_message(story, part):
    for status, _, stderr in story[2][part]:
        assert status == 1, stderr
        assert "lost the connection to another process" in stderr.splitlines()[-1], stderr
        assert "Traceback" not in stderr


def test_a_run_resumed_on_two_processes_is_bit_identical_to_an_uninterrupted_one(story):
    one, other = story[2]["two"]
    assert one[".step"] == other[".step"] == story[2]["stopped at"] > 10
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


def test_a_run_resumed_on_other_numbers_of_processes_matches_a_single_process(story, commands):
    path, single, parts = story
    assert [status for status, _, _ in parts["done"]] == [0, 0, 0], parts["done"]
    assert parts["one"][0][0] == 75, parts["one"]
    assert [session["processes"] for session in read_sessions(path)] == [2, 2, 3, 1, 3]
    one, other = final_state(path), final_state(single)
    # Rounding errors grow over eighty steps: relative to the distance from the start.
    learned = [name for name in other if name.startswith(".params")]
    start = initial_state(single)

    def length(states):
        return np.sqrt(sum(np.sum(np.square(states[0][n] - states[1][n])) for n in learned))

    assert length((one, other)) <= 0.02 * length((other, start))


def test_only_process_0_prints_and_each_example_is_evaluated_once(story, evaluated):
    path, _, parts = story
    (_, first, _), *others = parts["done"]
    result = json.loads(first.splitlines()[-1])
    assert result["examples"] == 360 and result["step"] == 80
    assert "3 cpu devices of 3 processes, 16 images each" in first
    for _, stdout, _ in others:
        assert [line for line in stdout.splitlines() if "Gloo" not in line] == []
    assert (path / "samples.png").exists() and (path / "report.html").exists()
    assert evaluated["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert evaluated["top1"] == result["top1"] and evaluated["examples"] == 360


def test_evaluation_runs_on_two_processes(story, start_all, evaluated):
    path, _, parts = story
    file = path / "predictions.npz"
    one = ("--workdir", path, "--predictions", file, "--calibrate")
    (status, stdout, stderr), (other, silent, _) = ended(
        start_all(one, one, module="train.evaluate")
    )
    assert (status, other) == (0, 0), stderr
    result = json.loads(stdout.splitlines()[-1])
    assert result["examples"] == 360 and "{" not in silent
    with np.load(file) as stored:
        assert stored["file"].tolist() == [f"record {i}" for i in range(360)]
    check_metrics(result, file)
    assert read_rows(str(path))[-1]["eval/top3"] == pytest.approx(result["top3"], abs=1e-9)
    assert result["top1"] == json.loads(parts["done"][0][1].splitlines()[-1])["top1"]
    assert result.keys() == evaluated.keys()
    for one, other in ((result, evaluated), (result["calibration"], evaluated["calibration"])):
        numbers = {name: value for name, value in one.items() if isinstance(value, (int, float))}
        assert numbers == pytest.approx({name: other[name] for name in numbers}, rel=1e-4)
    assert {"balanced_accuracy", "auroc_macro"} <= result.keys()
    assert result["calibration"]["temperature"] > 0


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            ["--config.seed=1"],
            ["must have the same configuration", "{'seed': 0}", "{'seed': 1}"],
        ),
        (["--workdir", "OTHER"], ["is not the one that process 0 sees"]),
        (["--config.dataset.data_dir=OTHER"], ["OTHER"]),
    ],
)
def test_processes_that_differ_exit_with_an_error(own, words, start_all, commands, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "sklearn_digits").write_text("no folder, so that nothing can be prepared here")
    arguments = commands.digits(tmp_path / "run", *TINY, "--config.num_steps=2")
    own = [argument.replace("OTHER", str(other)) for argument in own]
    for status, _, stderr in ended(
        start_all(arguments, (*arguments, *own), module="tests.train.runtime.impatient")
    ):
        assert status in (1, 2), stderr
        assert stderr.splitlines()[-1].startswith("error: ")
        for word in words:
            assert word.replace("OTHER", str(other)) in stderr
        assert "Traceback" not in stderr
