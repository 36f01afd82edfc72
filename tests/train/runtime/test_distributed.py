"""Runs of several processes on one machine: real ones, which are stopped, killed and go on."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flax_resnet.weights import manifest
from tests.conftest import ROOT, free_port
from tests.train.test_main import final_state, has_done, initial_state, last_json, wait_until
from train.data.sampler import ProcessShard
from train.runtime import distributed, rendezvous
from train.runtime.cli import Parser
from train.runtime.errors import RunError, UsageError
from train.workdir.run_files import read_sessions, saved_steps

# A batch that 1, 2 and 3 devices divide, and batch statistics of all of it.
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
)
SECONDS_TO_END = 120


@pytest.fixture(scope="module")
def start_all(commands):
    """Starts as many processes as there are lists of arguments; ends them all at the end."""
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


def ended(run, seconds=SECONDS_TO_END):
    """``(status, stdout, stderr)`` of all, once they have ended by themselves."""
    deadline = time.monotonic() + seconds
    results = []
    for process in run:
        stdout, stderr = process.communicate(timeout=max(1, deadline - time.monotonic()))
        results.append((process.returncode, stdout, stderr))
    return results


@pytest.fixture(scope="module")
def story(commands, start_all, tmp_path_factory):
    """A run on 2 processes, the first killed; again, stopped; on 3, the last killed; on 1; on 3.

    Those on 3 are by shard_map.

    Gives its workdir, that of a single process's run undisturbed, and each part's ``ended``. In
    ``two`` beside them are the states of 2 processes at the step where they were stopped: of this
    run, and of one undisturbed.
    """
    path = tmp_path_factory.mktemp("runs") / "together"
    alone, two = path.parent / "alone", path.parent / "two"
    arguments = commands.digits(path, *TINY)
    shard_map = (*arguments, "--config.parallel=shard_map")
    parts = {}

    undisturbed = commands.run("tests.without_report", *commands.digits(alone, *TINY))
    assert undisturbed.returncode == 0, undisturbed.stderr

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

    undisturbed = (*commands.digits(two, *TINY), f"--config.checkpoint.every_steps={at}")
    run = start_all(undisturbed, undisturbed)
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

    parts["done"] = ended(start_all(*[shard_map] * 3, module="train.main"))  # which draws
    return path, alone, parts


def test_a_signal_to_one_stops_all_at_the_same_step(story):
    _, _, parts = story
    for status, _, stderr in parts["stopped"]:
        assert status == 75, stderr
        assert f"after step {parts['stopped at']}; everything is saved" in stderr
    assert "SIGTERM after" in parts["stopped"][1][2]
    assert "a signal to another process after" in parts["stopped"][0][2]


@pytest.mark.parametrize("part", ["0 of 2 killed", "2 of 3 killed"])
def test_where_one_is_killed_the_others_end_with_a_word(story, part):
    for status, _, stderr in story[2][part]:
        assert status == 1, stderr
        assert "lost another one" in stderr.splitlines()[-1], stderr
        assert "Traceback" not in stderr


def test_two_that_were_killed_and_go_on_as_two_have_the_bits_of_two_undisturbed(story):
    one, other = story[2]["two"]
    assert one[".step"] == other[".step"] == story[2]["stopped at"] > 10
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


def test_it_goes_on_with_other_processes_and_ends_as_one_alone_does(story, commands):
    path, alone, parts = story
    assert [status for status, _, _ in parts["done"]] == [0, 0, 0], parts["done"]
    assert parts["one"][0][0] == 75, parts["one"]
    assert [session["processes"] for session in read_sessions(path)] == [2, 2, 3, 1, 3]
    one, other = final_state(path), final_state(alone)
    # Rounding that grows over eighty steps, against how far they went.
    learned = [name for name in other if name.startswith(".params")]
    start = initial_state(alone)

    def length(states):
        return np.sqrt(sum(np.sum(np.square(states[0][n] - states[1][n])) for n in learned))

    assert length((one, other)) <= 0.02 * length((other, start))


def test_the_first_speaks_and_counts_every_example_once(story, commands):
    path, _, parts = story
    (_, first, _), *others = parts["done"]
    result = json.loads(first.splitlines()[-1])
    assert result["examples"] == 360 and result["step"] == 80
    assert "3 cpu devices of 3 processes, 16 images each" in first
    for _, stdout, _ in others:
        assert [line for line in stdout.splitlines() if "Gloo" not in line] == []
    assert (path / "samples.png").exists() and (path / "report.html").exists()
    evaluated = commands.call("train.evaluate", "--workdir", path)
    again = last_json(evaluated)
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert again["top1"] == result["top1"] and again["examples"] == 360


def test_evaluation_takes_several_processes(story, start_all):
    path, _, parts = story
    file = path / "predictions.csv"
    one = ("--workdir", path, "--predictions", file)
    (status, stdout, stderr), (other, silent, _) = ended(
        start_all(one, one, module="train.evaluate")
    )
    assert (status, other) == (0, 0), stderr
    result = json.loads(stdout.splitlines()[-1])
    assert result["examples"] == 360 and "{" not in silent
    with open(file, newline="") as rows:
        told = list(csv.DictReader(rows))
    assert [row["image"] for row in told] == [f"record {i}" for i in range(360)]
    assert sum(row["predicted"] == row["label"] for row in told) / 360 == result["top1"]
    assert result["top1"] == json.loads(parts["done"][0][1].splitlines()[-1])["top1"]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            ["--config.seed=1"],
            ["have to have the same configuration", "{'seed': 0}", "{'seed': 1}"],
        ),
        (["--workdir", "OTHER"], ["is not the one that process 0 sees"]),
        (["--config.dataset.data_dir=OTHER"], ["OTHER"]),
    ],
)
def test_processes_that_are_not_alike_are_told(own, words, start_all, commands, tmp_path):
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


def test_newcomers_at_its_port_harm_no_run_and_one_lost_while_the_other_rests_does(monkeypatch):
    """The abort of JAX's threads comes while the other process does something else."""
    monkeypatch.setattr(rendezvous, "PATIENCE_SECONDS", 0.3)
    script = (
        "import argparse, sys, time\n"
        "from train import processes\n"
        "processes.HEARTBEAT_SECONDS = 10\n"
        "processes._check_devices = lambda devices: print('together', flush=True)\n"
        "port, own = sys.argv[1], int(sys.argv[2])\n"
        "flags = dict(coordinator='localhost:' + port, num_processes=2, process_id=own)\n"
        "processes.connect(argparse.Namespace(**flags))\n"
        "time.sleep(200)\n"
    )
    port = str(free_port())
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    run = [
        subprocess.Popen([sys.executable, "-c", script, port, own], **pipes) for own in ("0", "1")
    ]
    try:
        for process in run:
            assert process.stdout.readline() == "together\n", process.communicate()
        for own in (0, 1):
            with pytest.raises(RunError, match=f"port {port} of localhost is in use"):
                rendezvous.meet(f"localhost:{port}", 2, own, seconds=30)
        time.sleep(0.5)
        assert [process.poll() for process in run] == [None, None]
        run[0].kill()
        [(status, _, stderr)] = ended(run[1:])
        assert status == 1 and "process 1 on" in stderr.splitlines()[-1], stderr
        assert "lost another one" in stderr.splitlines()[-1]
    finally:
        for process in run:
            process.kill()
            process.communicate()


# Without starting any ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--num_processes", "2"], "come together"),
        (["--coordinator", "a:1", "--num_processes", "0", "--process_id", "0"], "at least 1"),
        (["--coordinator", "a:1", "--num_processes", "2", "--process_id", "2"], "0 to 1, not 2"),
        (["--coordinator", "a", "--num_processes", "2", "--process_id", "1"], "HOST:PORT"),
        (["--coordinator", "a:x", "--num_processes", "2", "--process_id", "1"], "HOST:PORT"),
    ],
)
def test_flags_that_make_no_sense(given, message):
    parser = Parser()
    distributed.add_flags(parser)
    with pytest.raises(UsageError, match=message):
        distributed.connect(parser.parse_args(given))


SRUN = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    ("env", "several"),
    [
        ({}, False),
        (SRUN, True),
        (SRUN | {"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, False),  # the script around srun
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://x:1", "OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://x:1", "OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"}, True),
        ({"KUBERNETES_SERVICE_HOST": "x"}, False),  # any other pod
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_are_known_by_what_they_set(env, several):
    assert distributed.launched_with_others(env) == several


@pytest.mark.parametrize(
    ("tasks", "visible", "devices"),
    [("1(x2)", "0,1,2,3", [0, 1, 2, 3]), ("4(x2)", "0,1,2,3", None), ("1", "", None)],
)
def test_the_only_task_of_a_node_has_all_its_gpus(tasks, visible, devices):
    env = {"SLURM_STEP_TASKS_PER_NODE": tasks, "CUDA_VISIBLE_DEVICES": visible}
    assert distributed._all_devices(env) == devices


def test_shares_make_up_the_batch_in_order():
    places = [place for process in range(3) for place in ProcessShard(process, 3).positions(48)]
    assert places == list(range(48))
