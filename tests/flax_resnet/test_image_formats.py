"""Only the formats that we promise reach a decoder."""

import os
import subprocess
import sys

import pytest

from flax_resnet.decoding import ImageDecodeError, decode_rgb, read_rgb
from flax_resnet.images.formats import detect_format
from tests.train.pictures import encode, photograph

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
OTHERS = {
    "PostScript": EPS,
    "PDF": b"%PDF-1.4\n" + bytes(100),
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HTML": b"\n<!DOCTYPE html><html></html>",
    "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "JPEG XL": b"\xff\x0a" + bytes(50),
    "icon": encode(photograph(), "ICO"),
    "Photoshop": b"8BPS\0\1" + bytes(50),
    "WMF or EMF": b"\xd7\xcd\xc6\x9a" + bytes(50),
    "FLI animation": b"\x80\0\0\0\x12\xaf" + bytes(150),
    "PFM": b"PF\n2 2\n-1.0\n" + bytes(48),
    "PAM": b"P7\nWIDTH 1\n",
    "DDS": encode(photograph(), "DDS"),
    "ICNS": b"icns" + bytes(50),
    "unknown format": encode(photograph(), "PCX"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_by_name(name):
    with pytest.raises(ImageDecodeError, match=name):
        decode_rgb(OTHERS[name])


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    """Pillow would pass it to Ghostscript, which executes it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    photo = tmp_path / "photo.jpg"
    for content in (EPS, b"\n" + EPS, b"\xc5\xd0\xd3\xc6\x20\0\0\0" + EPS):
        photo.write_bytes(content)
        with pytest.raises(ImageDecodeError, match=r"photo\.jpg: .*PostScript"):
            read_rgb(photo)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "kind", ["JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"]
)
def test_promised_formats_are_detected_and_decoded(kind):
    picture = photograph()
    encoded = encode(picture, kind)
    expected = {"MPO": "JPEG", "PPM": "PNM"}.get(kind, kind)
    assert detect_format(encoded) == expected
    assert abs(decode_rgb(encoded).astype(int) - picture).mean() < 12


def test_the_list_of_formats_imports_no_decoder():
    code = "import sys; from flax_resnet.images import formats; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "sys" in result.stdout.split() and not {"cv2", "PIL"} & {*result.stdout.split()}
