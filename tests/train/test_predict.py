"""train.predict: what a run says of pictures."""

import csv
import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnet import load_run
from tests.train.pictures import photograph
from train import predict
from train.runtime.errors import RunError, UsageError


@pytest.fixture
def pictures(tmp_path):
    """Five pictures at two depths, one that is broken, a link to none, and a text file."""
    folder = tmp_path / "pictures"
    (folder / "deep" / "er").mkdir(parents=True)
    places = ["b.png", "a.jpg", "deep/c.png", "deep/a.png", "deep/er/d.webp"]
    for seed, place in enumerate(places):
        Image.fromarray(photograph(seed, 20 + seed, 31)).save(folder / place)
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    (folder / "moved.png").symlink_to("nowhere.png")
    return folder


@pytest.fixture
def command(digits_run, monkeypatch, capsys):
    """Runs the command in this process; gives its status and what it said."""

    def run(*arguments):
        given = ["train.predict", "--workdir", digits_run, *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        status = predict.main()
        return status, *capsys.readouterr()

    return run


def test_a_broken_file_is_named_and_the_rest_goes_on(command, digits_run, pictures):
    status, out, err = command(pictures, "--json", "--topk", "3")
    assert status == 1
    rows = {row["file"]: row for row in map(json.loads, out.splitlines())}
    assert list(rows) == sorted(rows) and len(rows) == 7
    broken = rows.pop(str(pictures / "broken.png"))
    assert "cut short" in broken["error"] and "classes" not in broken
    assert f"error: {pictures / 'broken.png'}: " in err
    assert "No such file" in rows.pop(str(pictures / "moved.png"))["error"]
    assert err.splitlines()[-1] == "error: 2 of 7 pictures failed"
    run = load_run(digits_run)
    for file, row in rows.items():
        [expected] = run.predict(file)
        told = [entry["probability"] for entry in row["classes"]]
        np.testing.assert_allclose(told, np.sort(expected)[::-1][:3], atol=1e-5)
        assert row["classes"][0]["class"] == run.class_names[expected.argmax()]


def test_a_lone_last_picture_compiles_no_second_program(digits_run, pictures):
    files = [str(pictures / name) for name in ("a.jpg", "b.png", "deep/c.png")]
    run, alone = (load_run(digits_run, batch_size=size) for size in (2, 1))
    told = list(predict.answers(run, files, 3, None))
    assert run._compiled["logits"]._cache_size() == 1
    for answer, file in zip(told, files, strict=True):
        [expected] = alone.predict(file)
        of_answer = [probability for _, probability in answer.classes]
        np.testing.assert_allclose(of_answer, np.sort(expected)[::-1][:3], atol=1e-5)


def test_csv_and_text_say_the_same_and_no_more_than_there_is(command, pictures):
    files = [pictures / "a.jpg", pictures / "none.jpg", pictures / "b.png"]
    status, out, err = command(*files, "--csv", "--topk", "99")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 1 and "none.jpg: No such file" in err
    assert [row["rank"] for row in rows] == [*map(str, range(1, 11)), "", *map(str, range(1, 11))]
    assert "No such file" in rows[10]["error"]
    of_first = [float(row["probability"]) for row in rows[:10]]
    assert of_first == sorted(of_first, reverse=True) and sum(of_first) == pytest.approx(1)
    status, out, _ = command(files[0], "--topk", "1")
    assert status == 0
    assert out == f"{files[0]}: {rows[0]['class']} {of_first[0]:.1%}\n"


def test_explain_writes_a_picture_of_each(command, pictures):
    explained = pictures / "explained"
    for _ in range(2):  # its own pictures are none that are asked about
        status, out, _ = command(pictures, "--explain", explained)
        assert status == 1 and len(out.splitlines()) == 5
        names = sorted(path.name for path in explained.iterdir())
        assert names == ["a.png", "a_2.png", "b.png", "c.png", "d.png"]
    with Image.open(explained / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    left, right = np.split(pixels[120:, : picture.width // 2 * 2], 2, axis=1)
    # Red over the one on the right: the same picture, and yet not.
    assert np.abs(left - right).mean() > 3


def test_explain_takes_long_names_and_goes_on_after_what_it_cannot_write(command, pictures):
    explained = pictures.parent / "explained"
    (explained / "a.png").mkdir(parents=True)  # where a picture should be
    long = pictures / ("é" * 120 + ".png")
    (pictures / "b.png").rename(long)
    status, out, err = command(pictures / "a.jpg", long, "--explain", explained)
    assert status == 1 and f"error: {pictures / 'a.jpg'}: cannot write" in err
    assert out.startswith(f"{long}: ")
    assert (explained / ("é" * 100 + ".png")).stat().st_size > 1000
    with pytest.raises(UsageError, match="name another for --explain"):
        command(pictures, "--explain", pictures)


def test_classes_come_in_the_order_of_their_logits_and_no_number_is_an_error(
    command, digits_run, pictures, monkeypatch
):
    run = load_run(digits_run)
    head = jax.tree.map(lambda array: 1000 * array, run.variables["params"]["head"])
    sure = run.variables | {"params": run.variables["params"] | {"head": head}}
    config = run.config | {"loss": "binary_cross_entropy"}
    asked = dataclasses.replace(run, variables=sure, config=config)
    monkeypatch.setattr(predict, "open_run", lambda *_: asked)
    status, out, _ = command(pictures / "a.jpg", "--json", "--topk", "10")
    [row] = map(json.loads, out.splitlines())
    [logits] = asked.logits(pictures / "a.jpg")
    assert (asked.predict(pictures / "a.jpg") == 1).sum() > 1
    order = [run.class_names[index] for index in np.argsort(-logits)]
    assert status == 0 and [entry["class"] for entry in row["classes"]] == order

    asked.variables = jax.tree.map(lambda array: array * np.nan, sure)
    status, out, err = command(pictures / "a.jpg", "--json")
    assert status == 1 and list(json.loads(out)) == ["file", "error"] and "no number" in err


def test_what_cannot_be_asked(command, tmp_path):
    for arguments, kind, words in (
        (("x.png", "--topk", "0"), UsageError, "--topk"),
        (("x.png", "--step", "23"), UsageError, "no step 23"),
        (("x.png", "--step", "new"), UsageError, "--step must be"),
        ((tmp_path,), RunError, "has no pictures"),
    ):
        with pytest.raises(kind, match=words):
            command(*arguments)


def test_as_users_run_it(commands, digits_run, pictures):
    done = commands.run("train.predict", "--workdir", digits_run, pictures / "b.png", cwd=pictures)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith(f"{pictures / 'b.png'}: ") and done.stdout.count("%") == 5


def test_any_name_of_a_class_is_one_field_of_the_csv():
    name = 'a,"b"\nc'
    tell = predict.as_csv()
    told = [*tell(predict.Answer("x.png", [(name, 0.75)])), *tell(predict.Answer("y", [], "bad"))]
    rows = list(csv.DictReader(io.StringIO("".join(f"{line}\n" for line in told), newline="")))
    assert [row["class"] for row in rows] == [name, ""] and rows[1]["error"] == "bad"
    assert [row["file"] for row in rows] == ["x.png", "y"]


def test_any_name_of_a_class_is_one_line_of_the_text():
    [line] = predict.as_text()(predict.Answer("x\x1b[2J.png", [("a\r\nb\u2028é ü", 0.75)]))
    assert line == r"x\x1b[2J.png: a\r\nb\u2028é ü 75.0%"
