"""Tests of atomic writes."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from flax_resnet.files import make_atomically, write_atomically


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def stopped(temporary):
        with open(temporary, "w") as file:
            file.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_atomically(str(path), stopped)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_threads_may_write_the_same_file(tmp_path):
    path, contents = str(tmp_path / "file"), [str(n) * 10_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for text in pool.map(lambda n: write_atomically(path, contents[n % 8]), range(200)):
            assert text is None
    assert (tmp_path / "file").read_text() in contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
