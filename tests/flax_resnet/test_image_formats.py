"""Only the formats that we promise reach a decoder."""

import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from flax_resnet.decoding import ImageDecodeError, decode_rgb, read_image
from flax_resnet.images import headers
from flax_resnet.images.formats import detect_format
from flax_resnet.images.headers import plain_jpeg_shape
from tests.flax_resnet.odd_images import with_png_chunk
from tests.train.pictures import encode, photograph, rotated

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
            read_image(photo)
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


def png_with(png, kind, data, count):
    """Return a PNG with ``count`` equal chunks after its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + count * chunk + png[33:]


def test_work_is_in_proportion_to_the_file():
    """Files of 100 kB that took 10 s and 1 GB, or 34 s."""
    one_long_word = b"P2 200 100 255\n" + b"1 " * 19_999 + b"1" * 50_000
    text = b"exif 8\n" + b"00" * 1_000_000
    many_texts = png_with(
        encode(photograph(), "PNG"), b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text), 40
    )
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ImageDecodeError, match="Netpbm image is truncated or corrupt"):
        decode_rgb(one_long_word)
    assert (decode_rgb(many_texts) == photograph()).all()
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2 and peak < 100e6


@pytest.mark.parametrize("padding", range(3))
def test_orientation_after_the_frame_of_a_jpeg_is_applied(padding):
    encoded, exif = encode(photograph(), "JPEG"), rotated(6).tobytes() + bytes(padding)
    frame = encoded.index(b"\xff\xc0")
    end = frame + 2 + int.from_bytes(encoded[frame + 2 : frame + 4])
    segment = b"\xff\xe1" + (2 + len(exif)).to_bytes(2) + exif
    turned = decode_rgb(encoded[:end] + segment + encoded[end:])
    assert (turned == np.rot90(decode_rgb(encoded), -1)).all()


def test_the_header_of_a_jpeg_is_matched_without_reading_its_pixels():
    """Of files with other than the usual code tables, as ``jpegtran -optimize`` writes."""
    encoded = encode(photograph(), "JPEG")
    end = encoded.index(b"\xff\xc4")
    assert plain_jpeg_shape(encoded) == photograph().shape[:2]
    start = time.process_time()
    assert plain_jpeg_shape(encoded[:end] + b"\xff\xc4\0\x20" + bytes(30_000_000)) is None
    assert time.process_time() - start < 0.1


def test_a_color_profile_cut_off_by_the_end_of_the_file_is_refused():
    with pytest.raises(ImageDecodeError, match="JPEG"):
        decode_rgb(b"\xff\xd8\xff\xe2\0\x10ICC_PROFILE\0")


def claim_size(encoded, width, height):
    """Return a JPEG 2000 codestream whose header claims another size, in one tile."""
    claimed = struct.pack(">8I", width, height, 0, 0, width, height, 0, 0)
    return encoded[:8] + claimed + encoded[40:]


@pytest.mark.parametrize("size", [(5000, 5000), (25_000_000, 1), (1, 25_000_000)])
def test_claimed_parts_of_jpeg2000_are_bounded(size):
    """OpenJPEG took 14 s and 4 GB for the last of these files of 16 KB."""
    options = dict(no_jp2=True, num_resolutions=6, irreversible=False)
    small = encode(photograph(), "JPEG2000", codeblock_size=(4, 4), **options)
    decode_rgb(small)
    with pytest.raises(ImageDecodeError, match=r"claims .* code blocks"):
        decode_rgb(claim_size(small, *size))
    precincts = encode(photograph(), "JPEG2000", precinct_size=(4, 4), **options)
    layers = precincts.index(b"\xff\x52") + 6
    many = precincts[:layers] + b"\xff\xff" + precincts[layers + 2 :]
    with pytest.raises(ImageDecodeError, match=r"claims .* packets"):
        decode_rgb(many)


def test_a_tile_of_jpeg2000_that_ends_before_its_data_is_refused():
    encoded = encode(photograph(), "JPEG2000", no_jp2=True)
    length = encoded.index(b"\xff\x90\0\x0a") + 6
    assert encoded.index(b"\xff\x93") == length + 6
    with pytest.raises(ImageDecodeError, match="corrupt tile"):
        decode_rgb(encoded[:length] + b"\0\0\0\x0c" + encoded[length + 4 :])


def test_repeated_scans_of_a_sequential_jpeg_are_bounded():
    encoded = encode(photograph(), "JPEG")
    start = encoded.index(b"\xff\xda")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0\0\0"  # of one component
    with pytest.raises(ImageDecodeError, match="more than 100 scans"):
        decode_rgb(encoded[:start] + scan * 200 + b"\xff\xd9")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpeg_needs_no_other_segments(mode):
    """The short way for small files agrees with that of any file."""
    image = Image.fromarray(photograph()).convert(mode)
    plain, commented = encode(image, "JPEG"), encode(image, "JPEG", comment=b"made by hand")
    assert headers.plain_jpeg_shape(plain) == image.size[::-1]
    assert headers.plain_jpeg_shape(commented) is None
    np.testing.assert_array_equal(decode_rgb(plain), decode_rgb(commented))
    huge = plain.replace(struct.pack(">HH", *image.size[::-1]), b"\xf0\0\xf0\0", 1)
    with pytest.raises(ImageDecodeError, match="the header claims"):
        decode_rgb(huge)


def test_the_list_of_formats_imports_no_decoder():
    code = "import sys; from flax_resnet.images import formats; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "sys" in result.stdout.split() and not {"cv2", "PIL"} & {*result.stdout.split()}


def test_metadata_of_png_reach_no_decoder(capfd):
    """libpng prints the name of an unusable profile as it is, for every image."""
    photo = photograph()
    name = b"\x1b[31m\nerror: x"
    encoded = with_png_chunk(encode(photo, "PNG"), b"iCCP", name + b"\0\0" + zlib.compress(b"a"))
    encoded = with_png_chunk(encoded, b"zTXt", b"comment\0\0corrupt")
    np.testing.assert_array_equal(decode_rgb(encoded, lambda *_: None), np.asarray(photo))
    assert capfd.readouterr() == ("", "")


def test_parts_before_an_image_are_bounded():
    many = 200_000
    gif = bytearray(encode(np.zeros((8, 8), np.uint8), "GIF"))
    palette_end = 13 + (6 << (gif[10] & 7))
    assert decode_rgb(bytes(gif)).shape == (8, 8, 3)
    gif[palette_end:palette_end] = b"!\xfe" + b"\x01a" * many + b"\0"
    chunks = b"ABCD\0\0\0\0" * many
    webp = b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks
    for encoded in (bytes(gif), webp):
        with pytest.raises(ImageDecodeError, match="more than 100,000 chunks or blocks"):
            decode_rgb(encoded)


def test_time_for_a_plain_bitmap_is_linear():
    start = time.process_time()
    pixels = decode_rgb(b"P1\n2 2\n" + b" " * 10_000_000 + b"1 0 1 0\n")
    assert time.process_time() - start < 1
    assert pixels[..., 0].tolist() == [[0, 255], [0, 255]]
