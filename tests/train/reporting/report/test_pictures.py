"""Images of an evaluation in the page: size, maps over them, windows."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from flax_resnet.gradcam import overlay
from train.reporting.report import pictures

EVIL = "true: <b>&\"' 狗 قطة 🐶 (3 %)\npredicted: " + "x" * 200 + " (97 %)\nfile\udcff.png"


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def noise(count, side):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_images_are_as_large_as_fits_into_the_page():
    smooth = np.broadcast_to(np.arange(400, dtype=np.uint8)[None, :, None], (36, 400, 400, 3))
    [cells] = pictures.picture_cells([(smooth, ["a"] * 36)], None)
    assert {decode(cell["image"]).size for cell in cells} == {(320, 320)}
    first, second = pictures.picture_cells(
        [(noise(24, 320), ["a"] * 24), (noise(12, 320), "b" * 12)], None
    )
    assert [len(first), len(second)] == [24, 12] and second[3]["caption"] == "b"
    sizes = {decode(cell["image"]).size for cell in (*first, *second)}
    assert len(sizes) == 1 and 96 <= sizes.pop()[0] < 320  # noise is hard to compress
    assert sum(len(cell["image"]) for cell in (*first, *second)) <= pictures.MAX_BYTES


@pytest.mark.parametrize("shape", ((24, 24), (30, 20)))
def test_maps_over_images_look_like_those_of_predict(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    heat = np.exp(-((x - 8) ** 2 + (y - 12) ** 2) / 40).astype(np.float32)
    image = noise(1, 30)[0, : shape[0], : shape[1]]
    laid = Image.fromarray(image).convert("RGBA")
    laid.alpha_composite(decode(pictures.heat_uri(heat)))
    difference = np.abs(np.asarray(laid)[..., :3].astype(int) - overlay(image, heat).astype(int))
    assert difference.max() <= 2


def test_large_maps_are_reduced_and_keep_their_shape():
    assert decode(pictures.heat_uri(np.ones((224, 112)))).size == (20, 40)
    assert len(pictures.heat_uri(np.random.default_rng(0).random((224, 224)))) < 10_000


@pytest.mark.parametrize("has_heat", (True, False))
def test_each_image_is_in_the_page_once_and_opens_by_a_button(has_heat):
    heats = [np.ones((3, 8, 16))] if has_heat else None
    images = noise(3, 16)[:, :8]
    [cells] = pictures.picture_cells([(images, [EVIL, "b", "c"])], heats)
    page = pictures.picture_grid(cells, True, "k", aspect=2.0)
    root = ElementTree.fromstring(page)
    for cell in cells:
        assert page.count(cell["image"]) == 1
    buttons = [b.get("popovertarget") for b in root.iter("button") if b.get("class") == "picture"]
    assert buttons == [e.get("id") for e in root.iter() if e.get("class") == "window"]
    identifiers = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(identifiers) == len({*identifiers})
    assert {use.get("href")[1:] for use in root.iter("use")} <= {*identifiers}
    texts = "".join(root.itertext())
    assert "<b>&\"' 狗 قطة 🐶 (3 %)" in texts and "x" * 200 in texts and "file\\udcff.png" in texts
    for svg in root.iter("svg"):
        if svg.get("role") == "img" and svg.find("use") is not None:
            assert svg.get("viewBox").split()[2:] == ["200", "100"]
    labels = [svg.get("aria-label") for svg in root.iter("svg")]
    assert ("Grad-CAM map over the image" in labels) == has_heat
