"""train.predict: classes of images in files and folders."""

import csv
import dataclasses
import io
import json
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from flax_resnet import load_run
from flax_resnet.runs import Run
from tests.train.pictures import photograph
from train.predict import __main__ as predict
from train.predict import classes, engines
from train.reporting import prediction_lines
from train.runtime.errors import RunError, UsageError


@pytest.fixture
def pictures(tmp_path):
    """Return a folder of five images at two depths, a broken one, a dangling link and a text."""
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
    """Run the command in this process; return its status, stdout and stderr."""

    def run(*arguments):
        given = ["train.predict", "--workdir", digits_run, *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        status = predict.main()
        return status, *capsys.readouterr()

    return run


def test_files_follow_two_dashes(command, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    (pictures / "b.png").rename(pictures / "-b.png")
    status, out, _ = command("--topk", "1", "--", "-b.png", "a.jpg")
    assert status == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == ["./-b.png", "./a.jpg"]


def test_a_broken_file_is_reported_and_the_others_are_predicted(command, digits_run, pictures):
    status, out, err = command(pictures, "--json", "--topk", "3")
    assert status == 1
    rows = {row["file"]: row for row in map(json.loads, out.splitlines())}
    assert list(rows) == sorted(rows) and len(rows) == 7
    broken = rows.pop(str(pictures / "broken.png"))
    assert "truncated" in broken["error"] and "classes" not in broken
    assert f"error: {pictures / 'broken.png'}: " in err
    assert "No such file" in rows.pop(str(pictures / "moved.png"))["error"]
    assert err.splitlines()[-1] == "error: 2 of 7 images failed"
    run = load_run(digits_run)
    for file, row in rows.items():
        [expected] = run.predict(file)
        probabilities = [entry["probability"] for entry in row["classes"]]
        np.testing.assert_allclose(probabilities, np.sort(expected)[::-1][:3], atol=1e-5)
        assert row["classes"][0]["class"] == run.class_names[expected.argmax()]


def test_a_partial_last_batch_is_not_compiled_separately(digits_run, pictures):
    files = [str(pictures / name) for name in ("a.jpg", "b.png", "deep/c.png")]
    run, single = (load_run(digits_run, batch_size=size) for size in (2, 1))
    forward = engines.make_forward(run, None, with_features=False)
    predictions = list(classes.predict_files(run, files, 3, forward, None))
    assert run._compiled["logits"]._cache_size() == 1
    for prediction, file in zip(predictions, files, strict=True):
        [expected] = single.predict(file)
        probabilities = [probability for _, probability in prediction.classes]
        np.testing.assert_allclose(probabilities, np.sort(expected)[::-1][:3], atol=1e-5)


def test_csv_and_text_agree_and_topk_is_limited_to_the_classes(command, pictures):
    files = [pictures / "a.jpg", pictures / "none.jpg", pictures / "b.png"]
    status, out, err = command(*files, "--csv", "--topk", "99")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 1 and "none.jpg: No such file" in err
    assert [row["rank"] for row in rows] == [*map(str, range(1, 11)), "", *map(str, range(1, 11))]
    assert "No such file" in rows[10]["error"]
    first = [float(row["probability"]) for row in rows[:10]]
    assert first == sorted(first, reverse=True) and sum(first) == pytest.approx(1)
    status, out, _ = command(files[0], "--topk", "1")
    assert status == 0
    assert out == f"{files[0]}: {rows[0]['class']} {100 * first[0]:.1f} %\n"


def test_predictions_are_joined_to_the_rows_of_a_table(command, pictures, tmp_path):
    table = [
        ["id", "path", "error", "note"],
        ["7", "b.png", "", '=HYPERLINK("x")'],
        ["7", "broken.png", "", "two\nlines, quoted"],
        ["8", str(pictures / "a.jpg"), "none", ""],
        ["9", "", "", ""],
        ["10", "./b.png", "", "ü"],
    ]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerows(table)
    (tmp_path / "t.csv").write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    flags = ("--data_dir", pictures)
    status, out, err = command("--csv", tmp_path / "t.csv", *flags, "--topk", 2)
    header, *rows = csv.reader(io.StringIO(out, newline=""))
    assert status == 1 and err.splitlines()[-1] == "error: 2 of 5 images failed"
    added = ["predicted", "probability", "predicted_2", "probability_2", "run_error"]
    assert header == table[0] + added
    assert [row[:4] for row in rows] == table[1:]
    assert [bool(row[-1]) for row in rows] == [False, True, False, True, False]
    assert rows[0][4:] == rows[4][4:] and rows[1][4:8] == [""] * 4

    expected = {}
    for line in command(pictures / "b.png", pictures / "a.jpg", "--json")[1].splitlines():
        expected[json.loads(line)["file"]] = json.loads(line)["classes"]
    for row, file in ((rows[0], "b.png"), (rows[2], "a.jpg")):
        best, second = expected[str(pictures / file)][:2]
        assert (row[4], row[6]) == (best["class"], second["class"])
        assert float(row[5]) == pytest.approx(best["probability"], abs=1e-6)

    lines = command("--json", tmp_path / "t.csv", *flags, "--image_key", "path")[1].splitlines()
    assert [json.loads(line)["columns"]["id"] for line in lines] == ["7", "7", "8", "9", "10"]
    assert json.loads(lines[0])["file"] == str(pictures / "b.png")
    status, out, _ = command("--csv", tmp_path / "t.csv", *flags)
    assert next(csv.reader(io.StringIO(out, newline="")))[4:] == [
        "predicted",
        "probability",
        "run_error",
    ]


@pytest.mark.parametrize(
    ("text", "flags", "error", "message"),
    [
        ("image\n", (), RunError, "has no rows"),
        ("image,b\nx\ny,1\nz,1,2", (), RunError, "another number of fields .* in line 2, 4"),
        ("a,b\n1,2", (), UsageError, "no column of images .*choose with --image_key=COLUMN"),
        ("image,b\n1,2", ("--image_key", "c"), UsageError, r"no column 'c' \(--image_key\)"),
        ("image,x;image\n1", (), UsageError, "choose with --delimiter=CHARACTER"),
        ("image,b,b\n1,2,3", (), UsageError, "several columns 'b'"),
        ("image\nb.png", ("a.png",), UsageError, "the only argument, but there are 2"),
    ],
)
def test_unusable_tables_are_rejected_before_the_run_is_loaded(
    text, flags, error, message, command, tmp_path
):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=message):
        command(tmp_path / "t.csv", "--csv", *flags)


def test_flags_of_tables_need_one(command, pictures):
    with pytest.raises(UsageError, match="need a table of images"):
        command(pictures, "--image_key", "path")


def test_features_are_written_with_the_names_of_the_files(
    command, digits_run, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(classes, "MAX_BATCH_SIZE", 2)
    status, out, err = command(pictures, "--json", "--features", tmp_path / "f.npz")
    assert status == 1 and "classes" in out
    arrays = np.load(tmp_path / "f.npz")
    rows = [json.loads(line) for line in out.splitlines()]
    assert arrays["file"].tolist() == [row["file"] for row in rows if "error" not in row]
    run = load_run(digits_run)
    assert arrays["features"].dtype == np.float32
    for file, features in zip(arrays["file"], arrays["features"], strict=True):
        np.testing.assert_allclose([features], run.features(file), rtol=1e-4, atol=1e-5)
    assert f"note: {tmp_path / 'f.npz'} has 5 images, {features.size} features each" in err


def test_files_are_complete_although_the_reader_of_the_output_is_gone(
    commands, digits_run, pictures, tmp_path
):
    features, maps = tmp_path / "f.npz", tmp_path / "maps"
    flags = ("--workdir", digits_run, pictures / "deep", "--features", features, "--explain", maps)
    closed, output = os.pipe()
    os.close(closed)
    with os.fdopen(output, "w") as stdout:
        process = commands.start("train.predict", *flags, stdout=stdout)
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert len(np.load(features)["file"]) == len(list(maps.iterdir())) == 3


def test_features_of_a_table_have_its_columns(command, pictures, tmp_path):
    (tmp_path / "t.csv").write_text("image,id,network\na.jpg,7,x\nbroken.png,8,y\nb.png,9,z\n")
    flags = ("--data_dir", pictures, "--csv", "--features", tmp_path / "f.npz")
    assert command(tmp_path / "t.csv", *flags)[0] == 1
    arrays = np.load(tmp_path / "f.npz")
    assert arrays["file"].tolist() == [str(pictures / name) for name in ("a.jpg", "b.png")]
    assert arrays["id"].tolist() == ["7", "9"] and arrays["table_network"].tolist() == ["x", "z"]


def test_similar_images_are_those_with_the_highest_cosine(command, digits_run, pictures):
    run, files = load_run(digits_run), [str(pictures / name) for name in ("a.jpg", "b.png")]
    files += [str(pictures / "deep" / name) for name in ("a.png", "c.png")]
    features = np.stack([run.features(file)[0] for file in files])
    cosines = sklearn.metrics.pairwise.cosine_similarity(features)
    lines = command(*files, pictures / "none.png", "--similar", "2", "--json")[1].splitlines()
    rows = list(csv.DictReader(io.StringIO(command(*files, "--similar", "2", "--csv")[1])))
    text = command(*files, "--similar", "9")[1].splitlines()
    assert len(rows) == 8 and [row["rank"] for row in rows] == ["1", "2"] * 4
    for i, file in enumerate(files):
        others = [j for j in np.argsort(-cosines[i]) if j != i]
        expected = [(files[j], pytest.approx(cosines[i, j], abs=1e-5)) for j in others[:2]]
        row = json.loads(lines[i])
        assert row["file"] == file
        assert [(one["file"], one["similarity"]) for one in row["similar"]] == expected
        pair = rows[2 * i : 2 * i + 2]
        assert [(row["similar"], float(row["similarity"])) for row in pair] == expected
        names = ", ".join(f"{files[j]} {cosines[i, j]:.3f}" for j in others)
        assert text[i] == f"{file}: {names}"
    assert "No such file" in json.loads(lines[4])["error"]


def test_similar_images_of_a_file_of_features(command, digits_run, pictures, tmp_path):
    path = tmp_path / "f.npz"
    command(pictures / "deep", "--features", path)
    status, out, _ = command(pictures / "deep" / "a.png", "--similar", "1", "--among", path)
    assert (status, out) == (0, f"{pictures}/deep/a.png: {pictures}/deep/a.png 1.000\n")
    with pytest.raises(UsageError, match=r"of another checkpoint than step \d+ \(raw weights\)"):
        command(pictures, "--weights", "raw", "--similar", "1", "--among", path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--similar", "0"), "at least 1, not 0"),
        (("--similar", "1"), "at least two images, or others in --among FILE"),
        (("--among", "f.npz"), "--among needs --similar K"),
        (("--similar", "2", "--topk", "3"), "so --topk has no effect"),
        (("--features", "f.csv"), "--features must name a .npz or .parquet file, not 'f.csv'"),
        (("--similar", "2", "--among", "f"), "--among must name a .npz or .parquet file"),
    ],
)
def test_wrong_flags_of_features_are_rejected(command, pictures, flags, message):
    with pytest.raises(UsageError, match=message):
        command(pictures / "a.jpg", *flags)


def test_explain_writes_an_image_per_file(command, pictures):
    explained = pictures / "explained"
    for _ in range(2):  # images of the first run are skipped
        status, out, _ = command(pictures, "--explain", explained)
        assert status == 1 and len(out.splitlines()) == 5
        names = sorted(path.name for path in explained.iterdir())
        assert names == ["a.png", "a_2.png", "b.png", "c.png", "d.png"]
    with Image.open(explained / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    left, right = np.split(pixels[120:, : picture.width // 2 * 2], 2, axis=1)
    # The right half has the Grad-CAM map over it.
    assert np.abs(left - right).mean() > 3


def test_explain_shortens_long_names_and_continues_after_write_errors(command, pictures):
    explained = pictures.parent / "explained"
    (explained / "a.png").mkdir(parents=True)  # a folder instead of a file
    long = pictures / ("é" * 120 + ".png")
    (pictures / "b.png").rename(long)
    status, out, err = command(pictures / "a.jpg", long, "--explain", explained)
    assert status == 1 and f"error: {pictures / 'a.jpg'}: cannot write" in err
    assert out.startswith(f"{long}: ")
    assert (explained / ("é" * 100 + ".png")).stat().st_size > 1000
    with pytest.raises(UsageError, match="choose another folder for --explain"):
        command(pictures, "--explain", pictures)


def test_classes_are_ordered_by_logits_and_nan_is_an_error(
    command, digits_run, pictures, monkeypatch
):
    run = load_run(digits_run)
    head = jax.tree.map(lambda array: 1000 * array, run.variables["params"]["head"])
    sure = run.variables | {"params": run.variables["params"] | {"head": head}}
    config = run.config | {"loss": "binary_cross_entropy"}
    scaled = dataclasses.replace(run, variables=sure, config=config, activation="sigmoid")
    monkeypatch.setattr(classes, "load_trained_run", lambda *_: scaled)
    status, out, _ = command(pictures / "a.jpg", "--json", "--topk", "10")
    [row] = map(json.loads, out.splitlines())
    [logits] = scaled.logits(pictures / "a.jpg")
    assert (scaled.predict(pictures / "a.jpg") == 1).sum() > 1
    order = [run.class_names[index] for index in np.argsort(-logits)]
    assert status == 0 and [entry["class"] for entry in row["classes"]] == order

    scaled.variables = jax.tree.map(lambda array: array * np.nan, sure)
    status, out, err = command(pictures / "a.jpg", "--json")
    assert status == 1 and list(json.loads(out)) == ["file", "error"] and "not finite" in err


def test_invalid_arguments_are_rejected(command, tmp_path):
    for arguments, kind, words in (
        (("x.png", "--topk", "0"), UsageError, "--topk"),
        (("x.png", "--step", "23"), UsageError, "no step 23"),
        (("x.png", "--step", "new"), UsageError, "--step must be"),
        ((tmp_path,), RunError, "has no images"),
    ):
        with pytest.raises(kind, match=words):
            command(*arguments)


def test_command_in_a_process(commands, digits_run, pictures):
    done = commands.run("train.predict", "--workdir", digits_run, pictures / "b.png", cwd=pictures)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith(f"{pictures / 'b.png'}: ") and done.stdout.count("%") == 5


def test_any_class_name_is_one_csv_field():
    name = 'a,"b"\nc'
    lines = [
        prediction_lines.csv_row(prediction_lines.CSV_HEADER),
        *prediction_lines.csv_lines(prediction_lines.Prediction("x.png", [(name, 0.75)])),
        *prediction_lines.csv_lines(prediction_lines.Prediction("y", [], "bad")),
    ]
    rows = list(csv.DictReader(io.StringIO("".join(f"{line}\n" for line in lines), newline="")))
    assert [row["class"] for row in rows] == [name, ""] and rows[1]["error"] == "bad"
    assert [row["file"] for row in rows] == ["x.png", "y"]


def test_any_name_is_printable_json_with_the_same_value():
    name = "=1+1\x9b\u202e\n\udce9é\U000e0001"
    (line,) = prediction_lines.json_lines(prediction_lines.Prediction(name, [(name, 0.5)]))
    assert line.isprintable() and "é" in line
    assert json.loads(line) == {"file": name, "classes": [{"class": name, "probability": 0.5}]}


def test_any_class_name_is_one_line_of_text():
    [line] = prediction_lines.text_lines(
        prediction_lines.Prediction("x\x1b[2J.png", [("a\r\nb\u2028é ü", 0.75)])
    )
    assert line == r"x\x1b[2J.png: a\r\nb\u2028é ü 75.0 %"


# Engines ---------------------------------------------------------------------------------------


def test_onnxruntime_computes_what_jax_computes(command, digits_run, pictures, monkeypatch):
    pytest.importorskip("onnxruntime")
    _, expected, _ = command(pictures, "--json", "--topk", "10")
    monkeypatch.setattr(Run, "_compute", None)  # nothing is left to JAX
    status, out, err = command(pictures, "--json", "--topk", "10", "--engine", "onnxruntime")
    assert status == 1 and "note: computed by ONNX Runtime 1." in err
    rows, others = ([json.loads(line) for line in text.splitlines()] for text in (out, expected))
    assert len(rows) == len(others) == 7
    for row, other in zip(rows, others, strict=True):
        assert row["file"] == other["file"] and row.get("error") == other.get("error")
        found, sought = (
            {each["class"]: each["probability"] for each in one.get("classes", [])}
            for one in (row, other)
        )
        assert found == pytest.approx(sought, abs=1e-5)


@pytest.mark.parametrize("flag", [("--explain", "x"), ("--features", "x.npz"), ("--similar", "1")])
def test_what_only_jax_computes_is_refused_of_onnxruntime(command, pictures, flag):
    with pytest.raises(UsageError, match=f"{flag[0]} needs --engine jax, not onnxruntime"):
        command(pictures, "--engine", "onnxruntime", *flag)
    assert not os.path.exists(flag[1])


def test_a_missing_engine_is_named(command, pictures, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs onnx and onnxruntime: pip install 'flax-resnet\["):
        command(pictures, "--engine", "onnxruntime")


def test_networks_that_onnx_cannot_express_are_refused(digits_run):
    pytest.importorskip("onnxruntime")

    class Sorted(nn.Module):
        num_classes: int = 10
        axis_name: str | None = None
        dtype: jnp.dtype = jnp.float32

        @nn.compact
        def __call__(self, images, train=False):
            return jnp.sort(images.reshape(images.shape[0], -1), axis=1)[:, : self.num_classes]

    run = dataclasses.replace(load_run(digits_run), model=Sorted(), variables={"params": {}})
    with pytest.raises(RunError, match=r"sort.*omit --engine onnxruntime"):
        engines.make_forward(run, "onnxruntime", False)
