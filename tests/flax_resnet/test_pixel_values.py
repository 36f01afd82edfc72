"""Pixels mean what the file states, or the file is refused: a row for each kind of image."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from flax_resnet.decoding import ImageDecodeError, decode_rgb
from tests.flax_resnet import odd_images
from tests.flax_resnet.odd_images import bmp, exif, ramp, tiff
from tests.train.pictures import encode, photograph

RGB = photograph(0, 24, 32)
GRAY = RGB[..., :1]
SRGB = ImageCms.createProfile("sRGB")


def with_alpha(colors, dtype=np.uint8):
    """Return the colors with an alpha of 0 in the left half, and premultiplied ones."""
    full = np.iinfo(dtype).max
    alpha = np.full((*colors.shape[:2], 1), full, dtype)
    alpha[:, : colors.shape[1] // 2] = full // 4
    straight = np.concatenate([colors.astype(dtype) * (full // 255), alpha], axis=2)
    multiplied = straight.copy()
    multiplied[..., :-1] = np.round(straight[..., :-1] * (alpha / full))
    return straight, multiplied


def wide_gamut():
    """Return a profile whose red and blue are exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(SRGB).tobytes())
    entries = {bytes(data[i : i + 4]): i for i in range(132, 132 + 12 * 20, 12)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = (
        data[blue + 4 : blue + 12],
        data[red + 4 : red + 12],
    )
    return bytes(data)


def decoded_by_pillow(encoded):
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


def gray(values):
    return np.repeat(np.asarray(values, np.uint8).reshape(*values.shape[:2], 1), 3, axis=2)


def planar_tiff(values, order="<", orientation=1, photometric=2, extra=()):
    """Return a TIFF whose channels are stored one after the other."""
    height, width, channels = values.shape
    planes = np.moveaxis(values, 2, 0).reshape(-1, width, 1).copy()
    depth = 8 * values.itemsize
    described = {257: (4, [height]), 258: (3, [depth] * channels), 262: (3, [photometric])}
    described |= {277: (3, [channels])} | ({338: (3, [*extra])} if extra else {})
    described |= {
        278: (4, [height]),
        284: (3, [2]),
        339: (3, [1] * channels),
        274: (3, [orientation]),
    }
    return tiff(planes, 1, order, tags=described, strips=channels)


def tiff_rows():
    straight, multiplied = with_alpha(RGB)
    deep, deep_multiplied = with_alpha(RGB, np.uint16)
    gray_straight, gray_multiplied = with_alpha(GRAY)
    full, twelve = ramp(), ramp(largest=4095)
    upper, upper_twelve = gray(full >> 8), gray(twelve >> 4)
    color = np.repeat(twelve, 3, axis=2)
    indices = (np.arange(24 * 32).reshape(24, 32, 1) % 16).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (3, 16))
    colors = palette.T[indices[..., 0]].astype(np.uint8)
    tag = {320: (3, (palette * 257).reshape(-1).tolist())}
    for order in "<>":
        yield f"TIFF RGB {order}", tiff(RGB, 2, order), RGB, 0
        yield f"TIFF min is white {order}", tiff(255 - GRAY, 0, order), gray(GRAY), 0
        yield f"TIFF 16-bit {order}", tiff(full, 1, order), upper, 0
        yield f"TIFF 16-bit min is white {order}", tiff(65535 - full, 0, order), upper, 0
        yield f"TIFF unassociated alpha {order}", tiff(straight, 2, order, (2,)), RGB, 0
        yield f"TIFF associated alpha {order}", tiff(multiplied, 2, order, (1,)), RGB, 3
        yield f"TIFF 16-bit RGB {order}", tiff(deep[..., :3].copy(), 2, order), RGB, 0
        yield f"TIFF 16-bit alpha {order}", tiff(deep, 2, order, (2,)), RGB, 0
        yield f"TIFF 16-bit associated {order}", tiff(deep_multiplied, 2, order, (1,)), RGB, 1
        yield f"TIFF 12 in 16 bits {order}", tiff(twelve, 1, order), upper_twelve, 0
        yield f"TIFF RGB 12 in 16 bits {order}", tiff(color, 2, order), upper_twelve, 0
        yield f"TIFF palette {order}", tiff(indices, 3, order, bits=4, tags=tag), colors, 0
    stated = {281: (3, [4095])}
    dark = twelve // 64
    yield "TIFF MaxSampleValue", tiff(dark, 1, tags=stated), gray(dark >> 4), 0
    yield "TIFF gray alpha", tiff(gray_straight, 1, extra=(2,)), gray(GRAY), 0
    yield "TIFF gray associated alpha", tiff(gray_multiplied, 1, extra=(1,)), gray(GRAY), 4
    yield "TIFF unspecified channel", tiff(straight, 2, extra=(0,)), RGB, 0
    small = {320: (3, palette.reshape(-1).tolist())}  # as some programs write it, 0 to 255
    yield "TIFF palette of 8 bits", tiff(indices, 3, bits=4, tags=small), colors, 0
    for bits in (1, 2, 4, 10, 12, 14):
        levels = ramp(largest=2**bits - 1)
        expected = levels * (255 // (2**bits - 1)) if bits < 8 else levels >> (bits - 8)
        yield f"TIFF {bits}-bit", tiff(levels, 1, bits=bits), gray(expected), 0
        if bits < 8:
            yield (
                f"TIFF {bits}-bit min is white",
                tiff(levels, 0, bits=bits),
                gray(255 - expected),
                0,
            )
    for order in "<>":
        yield f"TIFF 16-bit planes {order}", planar_tiff(deep, order), RGB, 0
        associated = planar_tiff(multiplied, order, extra=[1])
        yield f"TIFF 8-bit planes, associated {order}", associated, RGB, 4
        for kind, values in ((1, gray_multiplied), (2, gray_straight // 20)):
            planes = planar_tiff(values, order, photometric=1, extra=[kind])
            shown = gray(GRAY) if kind == 1 else gray(GRAY // 20)
            yield f"TIFF 8-bit planes, gray alpha {kind} {order}", planes, shown, 4 * (kind == 1)
        twelve_planes = planar_tiff(deep >> 4, order)
        yield f"TIFF 16-bit planes, 12 bits {order}", twelve_planes, RGB, 0
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        alpha = encode(Image.fromarray(straight), "TIFF", compression=compression)
        yield f"TIFF {compression} alpha", alpha, RGB, 0
    transform = ImageCms.buildTransform(SRGB, ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(RGB), transform)
    yield "TIFF LAB", encode(lab, "TIFF"), RGB, 24
    cmyk = Image.fromarray(RGB).convert("CMYK")
    yield "TIFF CMYK", encode(cmyk, "TIFF"), RGB, 1
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    pages = encode(first, "TIFF", save_all=True, append_images=[second])
    yield "TIFF of two pages", pages, RGB, 0


def png_rows():
    straight, _ = with_alpha(RGB)
    yield "PNG alpha", encode(straight, "PNG"), RGB, 0
    yield (
        "PNG gray alpha",
        encode(Image.fromarray(GRAY[..., 0]).convert("LA"), "PNG"),
        gray(GRAY),
        0,
    )
    palette = Image.fromarray(RGB).quantize(16)
    colors = np.array(palette.convert("RGB"))
    yield "PNG palette", encode(palette, "PNG"), colors, 0
    transparent = encode(palette, "PNG", transparency=bytes(range(0, 160, 10)))
    yield "PNG palette, tRNS", transparent, colors, 0
    yield "PNG color key", encode(RGB, "PNG", transparency=tuple(map(int, RGB[0, 0]))), RGB, 0
    full, twelve = ramp(), ramp(largest=4095)
    yield "PNG 16-bit", encode(full[..., 0], "PNG"), gray(full >> 8), 0
    plain = encode(twelve[..., 0], "PNG")
    yield "PNG 12 in 16 bits", plain, gray(twelve >> 4), 0
    stated = odd_images.with_png_chunk(encode((twelve // 64)[..., 0], "PNG"), b"sBIT", b"\x0c")
    yield "PNG sBIT", stated, gray(twelve // 64 >> 4), 0
    scaled = odd_images.with_png_chunk(encode(full[..., 0], "PNG"), b"sBIT", b"\x0c")
    yield "PNG sBIT, scaled as specified", scaled, gray(full >> 8), 0
    dark = full // 257 * 16
    scaled = odd_images.with_png_chunk(encode(dark[..., 0], "PNG"), b"sBIT", b"\x0c")
    yield "PNG sBIT, dark and scaled", scaled, gray(dark >> 8), 0
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    apng = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "PNG animation", apng, RGB, 0
    apng = encode(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield "PNG animation with another image", apng, RGB, 0
    clear = [Image.fromarray(straight), Image.fromarray(255 - straight)]
    apng = encode(clear[0], "PNG", save_all=True, append_images=clear[1:])
    yield "PNG animation with alpha", apng, RGB, 0


def other_rows():
    straight, _ = with_alpha(RGB)
    lossless = dict(lossless=True, exact=True)
    frames = [Image.fromarray(straight), Image.fromarray(255 - straight)]
    yield "WebP alpha", encode(straight, "WEBP", **lossless), RGB, 0
    animated = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], **lossless)
    yield "WebP animation", animated, RGB, 0
    yield "JPEG 2000 alpha", encode(straight, "JPEG2000", irreversible=False), RGB, 0
    yield "JPEG 2000 codestream", encode(RGB, "JPEG2000", no_jp2=True), RGB, 0
    deep = Image.fromarray(ramp(64, 64)[..., 0])
    yield "JPEG 2000 16-bit", encode(deep, "JPEG2000"), gray(ramp(64, 64) >> 8), 0
    flat = np.full((24, 32, 4), (200, 100, 50, 128), np.uint8)
    yield "AVIF alpha", encode(flat, "AVIF", quality=100, subsampling="4:4:4"), flat[..., :3], 4
    palette = Image.fromarray(RGB).quantize(16)
    colors = np.array(palette.convert("RGB"))
    yield "GIF transparency", encode(palette, "GIF", transparency=3), colors, 0
    comments = odd_images.gif_with_comments(encode(palette, "GIF", transparency=3), 3)
    yield "GIF comments", comments, colors, 0
    for kind, maximum in ((b"P5", 4095), (b"P5", 100), (b"P5", 255), (b"P5", 65535)):
        values = ramp(largest=maximum)
        data = values.astype(">u2" if maximum > 255 else np.uint8).tobytes()
        expected = values >> 8 if maximum == 65535 else np.round(values * (255 / maximum))
        header = b"%s\n# made by hand\n64 4\n%d\n" % (kind, maximum)
        yield f"PGM of {maximum}", header + data, gray(expected), 0
        words = b" ".join(b"%d" % value for value in values.reshape(-1))
        yield f"plain PGM of {maximum}", header.replace(b"P5", b"P2") + words, gray(expected), 0
    yield "PPM", encode(RGB, "PPM"), RGB, 0
    black = Image.fromarray(RGB).convert("1")
    yield "PBM", encode(black, "PPM"), np.array(black.convert("RGB")), 0
    # Stored as Adobe does: inverted, and the first three converted to YCbCr.
    stored = np.full((16, 16, 4), (120, 100, 160, 200), np.uint8)
    ycck = encode(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100, subsampling=0)
    adobe = ycck.index(b"Adobe") + 11
    ycck = ycck[:adobe] + b"\2" + ycck[adobe + 1 :]
    inks = np.array(Image.fromarray(stored[..., :3], "YCbCr").convert("RGB"))
    yield "JPEG YCCK", ycck, np.round((255 - inks) * (200 / 255)).astype(np.uint8), 4
    cmyk = Image.fromarray(RGB).convert("CMYK")
    yield "JPEG CMYK", encode(cmyk, "JPEG", quality=100, subsampling=0), RGB, 8
    yield "MPO", encode(RGB, "MPO", quality=100, subsampling=0), RGB, 8


def bmp_rows():
    indices = np.arange(8 * 8).reshape(8, 8) % 16
    table = np.random.default_rng(2).integers(0, 256, (16, 3))
    palette = b"".join(bytes([*color[::-1], 0]) for color in table.tolist())
    colors = table[indices].astype(np.uint8)
    flipped = indices[::-1].astype(np.uint8)
    runs = b"".join(b"".join(bytes([1, int(v)]) for v in row) + b"\0\0" for row in flipped)
    yield "BMP RLE8", bmp(runs + b"\0\1", 8, 8, 8, 1, palette), colors, 0
    literal = b"".join(b"\0\x08" + row.tobytes() + b"\0\0" for row in flipped)
    yield "BMP RLE8, literal", bmp(literal + b"\0\1", 8, 8, 8, 1, palette), colors, 0
    pairs = flipped[:, ::2] << 4 | flipped[:, 1::2]
    runs = b"".join(b"".join(bytes([2, int(v)]) for v in row) + b"\0\0" for row in pairs)
    yield "BMP RLE4", bmp(runs + b"\0\1", 8, 8, 4, 2, palette), colors, 0
    yield "BMP 4-bit", bmp(pairs.tobytes(), 8, 8, 4, 0, palette), colors, 0
    yield "BMP 8-bit", bmp(flipped.tobytes(), 8, 8, 8, 0, palette), colors, 0
    yield "BMP top-down", bmp(indices.astype(np.uint8).tobytes(), 8, -8, 8, 0, palette), colors, 0
    bits = np.packbits(flipped % 2, axis=1).tobytes()
    rows = b"".join(bits[i : i + 1] + bytes(3) for i in range(8))
    yield "BMP 1-bit", bmp(rows, 8, 8, 1, 0, palette[:8]), table[indices % 2].astype(np.uint8), 0
    bgra = np.concatenate([RGB[::-1, :, ::-1], np.full((24, 32, 1), 9, np.uint8)], axis=2)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "BMP alpha mask", bmp(bgra.tobytes(), 32, 24, 32, 3, b"", masks, 108), RGB, 0
    yield "BMP 32-bit", bmp(bgra.tobytes(), 32, 24, 32), RGB, 0
    yield "BMP 24-bit", encode(RGB, "BMP"), RGB, 0


ROWS = [*tiff_rows(), *png_rows(), *other_rows(), *bmp_rows()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_kind_decodes_to_its_colors(row):
    _, encoded, expected, tolerance = row
    pixels = decode_rgb(encoded, lambda *_: None)
    assert pixels.shape == expected.shape
    assert abs(pixels.astype(int) - expected).max() <= tolerance


# Kinds that Pillow decodes otherwise or not at all; the expected values above are of closed form.
DIFFERENT = ("12 in 16", "16-bit", "sBIT", "MaxSample", "associated", "bits", "10-bit", "12-bit")
DIFFERENT += (
    "14-bit",
    "LAB",
    "PGM",
    "YCCK",
    "alpha mask",
    "animation with",
    "gray alpha <",
    "planes",
)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if not any(kind in row[0] for kind in DIFFERENT)],
    ids=lambda r: r[0],
)
def test_kind_agrees_with_pillow(row):
    pixels = decode_rgb(row[1], lambda *_: None)
    assert abs(pixels.astype(int) - decoded_by_pillow(row[1])).max() <= 1


# tifffile returns indices or unconverted colors, or needs a library for the codec.
NOT_TIFFFILE = ("palette", "LAB", "CMYK", "lzw", "packbits")
NOT_TIFFFILE += tuple(f" {bits}-bit" for bits in (2, 4, 10, 12, 14))


@pytest.mark.peer
@pytest.mark.parametrize(
    "row",
    [row for row in tiff_rows() if not any(k in row[0] for k in NOT_TIFFFILE)],
    ids=lambda r: r[0],
)
def test_tiff_agrees_with_tifffile(row):
    """The values that another library reads, reduced to 8 bits as documented."""
    tifffile = pytest.importorskip("tifffile")
    _, encoded, expected, tolerance = row
    page = tifffile.TiffFile(io.BytesIO(encoded)).pages[0]
    values = page.asarray().astype(np.float64)
    if page.planarconfig == 2:
        values = np.moveaxis(values, 0, 2)
    values = values.reshape(*values.shape[:2], -1)
    if page.extrasamples and page.extrasamples[0] == 1:
        values[..., :-1] /= values[..., -1:] / np.iinfo(page.dtype).max
    values = values[..., : 3 if page.photometric == 2 else 1]
    # A linear relation to the 8-bit result, with the range as the only freedom.
    reference = values / max(values.max(), 1) * expected.max()
    if page.photometric == 0:
        reference = (1 - values / max(values.max(), 1)) * expected.max()
    assert abs(decode_rgb(encoded, lambda *_: None) - reference).max() <= 2 + tolerance


FLOATS = ramp().astype(np.float32) / 65535
REFUSED = {
    "32-bit floats": tiff(FLOATS, 1, sample_format=3),
    "16-bit floats": tiff(FLOATS.astype(np.float16), 1, sample_format=3),
    "64-bit floats": tiff(FLOATS.astype(np.float32), 1, sample_format=3, tags={258: (3, [64])}),
    "32-bit integers": tiff(ramp().astype(np.uint32), 1),
    "32-bit signed integers": tiff(ramp().astype(np.int32), 1, sample_format=2),
    "16-bit signed integers": tiff(ramp().astype(np.int16), 1, sample_format=2),
    "photometric interpretation 32803": tiff(GRAY, 32803),
    "raw camera": tiff(RGB, 2, tags={50706: (1, [1, 4, 0, 0])}),
    "12 channels": tiff(np.repeat(GRAY, 12, axis=2), 1, extra=(0,) * 11),
    "uncompressed planes": planar_tiff(np.repeat(ramp(), 5, axis=2)),
    "preview": tiff(RGB, 2, tags={254: (4, [1])}),
    "12-bit JPEG": encode(RGB, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_without_a_range_are_refused_by_name(name):
    with pytest.raises(ImageDecodeError, match=name):
        decode_rgb(REFUSED[name])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_in_every_container(orientation):
    oriented = Image.fromarray(RGB)
    oriented.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(oriented))
    sharp = dict(quality=100, subsampling=0)
    jpeg, png = encode(RGB, "JPEG", **sharp), encode(RGB, "PNG")
    webp = encode(RGB, "WEBP", lossless=True)
    cases = {
        "TIFF": encode(RGB, "TIFF", tiffinfo={0x0112: orientation}),
        "TIFF LZW": encode(RGB, "TIFF", tiffinfo={0x0112: orientation}, compression="tiff_lzw"),
        "TIFF 16-bit planes": planar_tiff(RGB * np.uint16(257), orientation=orientation),
        "TIFF 16-bit": tiff(RGB * np.uint16(257), 2, tags={0x0112: (3, [orientation])}),
        "AVIF": encode(RGB, "AVIF", exif=exif(orientation), **sharp | {"subsampling": "4:4:4"}),
    }
    for order in "<>":
        for prefix in (b"", b"Exif\0\0"):
            data = exif(orientation, order, prefix)
            name = f"{order} {prefix}"
            cases |= {
                f"JPEG {name}": odd_images.with_jpeg_segment(jpeg, 0xE1, data),
                f"PNG {name}": odd_images.with_png_chunk(png, b"eXIf", data),
                f"PNG at the end {name}": odd_images.with_png_chunk(png, b"eXIf", data, b"IEND"),
                f"WebP {name}": odd_images.with_webp_chunk(webp, 32, 24, b"EXIF", data),
            }
    digits = exif(orientation, prefix=b"Exif\0\0").hex().encode()
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  %d\n%s\n" % (32, digits))
    cases["PNG of ImageMagick"] = odd_images.with_png_chunk(png, b"zTXt", text)
    text = b"Raw profile type exif\0\nexif\n  %d\n%s\n" % (32, digits)
    cases["PNG of ImageMagick, uncompressed"] = odd_images.with_png_chunk(png, b"tEXt", text)
    for name, encoded in cases.items():
        pixels = decode_rgb(encoded)
        tolerance = 8 if name.startswith(("JPEG", "AVIF")) else 0
        assert pixels.shape == expected.shape, name
        assert abs(pixels.astype(int) - expected).max() <= tolerance, name


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_color_profiles_are_converted_to_srgb(kind):
    options = {"JPEG": dict(quality=100, subsampling=0), "WEBP": dict(lossless=True)}
    options["AVIF"] = dict(quality=100, subsampling="4:4:4")
    profile = wide_gamut()
    other = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    without = decode_rgb(encode(RGB, kind, **options.get(kind, {})))
    expected = np.array(ImageCms.profileToProfile(Image.fromarray(without), other, SRGB))
    pixels = decode_rgb(encode(RGB, kind, icc_profile=profile, **options.get(kind, {})))
    np.testing.assert_array_equal(pixels, expected)
    assert abs(pixels.astype(int) - RGB).max() > 50  # not the colors that are stored
    srgb = ImageCms.ImageCmsProfile(SRGB).tobytes()
    same = decode_rgb(encode(RGB, kind, icc_profile=srgb, **options.get(kind, {})))
    np.testing.assert_array_equal(same, without)


def test_bytes_stored_as_16_bits_keep_their_values():
    warnings = []
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    pixels = decode_rgb(encode(values, "PNG"), lambda *warning: warnings.append(warning))
    np.testing.assert_array_equal(pixels, np.repeat(values[..., None], 3, axis=2))
    assert [kind for kind, _ in warnings] == ["8-bit values"]


def test_oddities_are_reported_with_their_kind():
    warnings = []
    decode_rgb(tiff(ramp(largest=4000), 1), lambda *warning: warnings.append(warning))
    decode_rgb(tiff(ramp(largest=9000), 1), lambda *warning: warnings.append(warning))
    decode_rgb(tiff(ramp(), 1), lambda *warning: warnings.append(warning))
    decode_rgb(tiff(ramp(largest=255), 1, tags={281: (3, [4095])}), lambda *w: warnings.append(w))
    frames = [Image.fromarray(RGB)] * 2
    pages = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    decode_rgb(pages, lambda *warning: warnings.append(warning))
    decode_rgb(encode(RGB, "PNG", icc_profile=b"junk"), lambda *w: warnings.append(w))
    kinds = [kind for kind, _ in warnings]
    assert kinds == ["12-bit values", "dark 16-bit values", "several pages", "color profile"]
    assert "4,000 of 65,535" in warnings[0][1] and "9,000" in warnings[1][1]
