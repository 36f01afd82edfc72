"""Limits of the machine, set by the system's own calls in a process of their own."""

import os
import resource
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from train.runtime import host_memory, limits
from train.runtime.files import check_operations, user_cache_dir


def in_process(code, prepare=lambda: None, **environment):
    """Return what ``code`` prints about ``limits`` after ``prepare`` was called."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os; from train.runtime import limits\n{code}"],
        **{"preexec_fn": prepare, "cwd": ROOT, "capture_output": True, "text": True},
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_limit_of_open_files_is_raised_or_reported():
    def soft():
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 200))

    def hard():
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

    code = "print(limits.open_files(8)); [os.open('/', 0) for _ in range(100)]"
    assert in_process(code, soft) == "None"
    assert "and the limit is 32: raise it (ulimit -n" in in_process(
        "print(limits.open_files(8))", hard
    )


def test_limit_of_the_address_space():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    assert in_process("print(limits.memory(10**8, 0))", limit) == "None"
    problem = in_process("print(limits.memory(2 * 10**9, 0))", limit)
    assert problem.startswith("images need at least 2.0 GB of memory, and ")


def test_limit_of_threads_that_array_record_starts(tmp_path):
    """Below the limit, its reader waits forever for threads that could not start."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))

    code = "print(limits.array_record_threads())"
    assert in_process(code) == "None"
    assert "raise the limit of memory (ulimit -v)" in in_process(code, limit)
    use = (
        "from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter\n"
        f"file = {str(tmp_path / 'file')!r}\n"
        "writer = ArrayRecordWriter(file, ''); writer.write(b'a'); writer.close()\n"
        "readers = [ArrayRecordReader(file) for _ in range(3)]\n"
        "print(len(os.listdir('/proc/self/task')) <= 1 + limits.ARRAY_RECORD_THREADS)"
    )
    assert in_process(use) == "True"


def test_limit_of_memory_counts_swap(monkeypatch):
    for name, value in (("host_limit", 900), ("resident_memory", 400), ("swap", 100)):
        monkeypatch.setattr(host_memory, name, lambda value=value: value)
    assert limits.memory(600, 0) is None
    assert "and 300 decoding processes need at least" in limits.memory(0, 300)
    assert "601 bytes of memory, and 600 bytes are available" in limits.memory(601, 0)


def test_limit_of_processes_of_a_control_group(monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "control_groups", lambda _: [tmp_path, tmp_path / "none"])
    assert limits.processes(10**6) is None or os.getuid() != 0
    (tmp_path / "pids.max").write_text("100\n")
    (tmp_path / "pids.current").write_text("50\n")
    assert limits.processes(10) is None
    assert "workers=11 need at least 55 processes and threads, and 50 more" in limits.processes(11)
    (tmp_path / "pids.max").write_text("max\n")
    assert limits.processes(11) is None


def test_control_groups_include_those_around(monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "_CGROUPS", tmp_path)
    folders = list(host_memory.control_groups("memory"))
    assert tmp_path in folders and tmp_path / "memory" in folders


def test_limit_of_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "SHARED_MEMORY", str(tmp_path))
    assert limits.shared_memory(1) is None
    assert "free for the 1000000 TB" in limits.shared_memory(10**18).replace(",", "")
    monkeypatch.setattr(limits, "SHARED_MEMORY", str(tmp_path / "none"))  # as on macOS
    assert limits.shared_memory(10**18) is None


def test_shared_memory_that_cannot_be_written(monkeypatch):
    assert limits.semaphores(2) is None

    def fail(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock._make_name", fail)
    assert limits.semaphores(0) is None
    assert "need /dev/shm, which cannot be written (Read-only" in limits.semaphores(2)


def test_limits_of_checkpoints(tmp_path):
    assert limits.disk_space(str(tmp_path / "new" / "run"), 1, 3) is None
    problem = limits.disk_space(str(tmp_path / "new" / "run"), 10**18, 3)
    assert "need 3000000 TB and the disk has" in problem.replace(",", "")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert limits.file_size("run", 1000) is None
        assert "at least 1.0 kB, and the limit is 1.0 kB" in limits.file_size("run", 1001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("name", "locale", "fits"),
    [
        (b"\xc3\xbc", "C.UTF-8", True),
        (b"\xfc", "C.UTF-8", False),  # Latin-1
        (b"\xc3\xbc", "C", False),
        (b"plain", "C", True),
    ],
)
def test_names_that_libraries_cannot_find(name, locale, fits):
    code = f"print(limits.name_encoding(os.fsdecode({name!r}), 'the workdir') is None)"
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert in_process(code, **environment) == str(fits)


def test_temporary_folder(monkeypatch):
    assert limits.temporary_folder() is None

    def missing():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(limits.tempfile, "gettempdir", missing)
    assert "set TMPDIR" in limits.temporary_folder()


def test_operations_leave_nothing(tmp_path):
    check_operations(str(tmp_path))
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError):
        check_operations(str(tmp_path / "none"))


def test_cache_of_a_user_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert os.path.isabs(user_cache_dir("compiled"))
