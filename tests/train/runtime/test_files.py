"""Files that are whole or not there."""

import pytest

from flax_resnet.files import make_atomically


def test_what_was_stopped_half_way_leaves_nothing(tmp_path):
    place = tmp_path / "file"
    place.write_text("before")

    def stopped(beside):
        with open(beside, "w") as file:
            file.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_atomically(str(place), stopped)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert place.read_text() == "before"
