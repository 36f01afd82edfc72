"""The image formats that are decoded, recognized by content. Imports no decoder."""

import re

# File endings of the formats that are decoded, in lower case.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
# Endings of images in formats that are not decoded: a person would expect them to be read.
UNSUPPORTED_EXTENSIONS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "raw camera"),
    **dict.fromkeys((".eps", ".ps"), "PostScript"),
    **dict.fromkeys((".pdf",), "PDF"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    **dict.fromkeys((".ico", ".cur"), "icon"),
    **dict.fromkeys((".tga", ".pcx", ".ras", ".sgi", ".xbm", ".xpm", ".icns", ".qoi"), "image"),
    **dict.fromkeys((".exr", ".hdr", ".pfm"), "floating-point image"),
    **dict.fromkeys((".dcm", ".nii", ".fits"), "medical or scientific"),
}

_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    # The size of the second header distinguishes a bitmap from a text that begins with BM.
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "AVIF": rb"....ftyp(?:....){0,31}?avi[fs]",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "PNM": rb"P[1-6][\s#]",
}
_OTHERS = {
    "HEIF": rb"....ftyp(?:hei|hev|mif1|msf1)",
    "video": rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG XR": rb"II\xbc",
    "raw camera": rb"IIRO|IIRS|MMOR|IIU\0|FUJIFILM|FOVb",
    "PostScript": rb"\s*%!|\xc5\xd0\xd3\xc6",
    "PDF": rb"\s*%PDF",
    "SVG": rb"(?:\xef\xbb\xbf)?\s*<(?:[?!].{0,900}?<)?svg",
    "HTML": rb"(?:\xef\xbb\xbf)?\s*<(?i:!doctype html|html|head|body)",
    "XML": rb"(?:\xef\xbb\xbf)?\s*<\?xml",
    "Photoshop": rb"8BPS",
    "icon": rb"\0\0[\x01\x02]\0.\0",
    "WMF or EMF": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "FLI animation": rb"....[\x11\x12]\xaf",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?R",
    "PFM": rb"P[Ff]\s",
    "PAM": rb"P7\s",
    "DDS": rb"DDS ",
    "QOI": rb"qoif",
    "Sun raster": rb"\x59\xa6\x6a\x95",
    "ICNS": rb"icns",
    "DjVu": rb"AT&TFORM",
    "GIMP": rb"gimp xcf",
    "DICOM": rb".{128}DICM",
    "FITS": rb"SIMPLE  =",
    "HDF5": rb"\x89HDF",
    "NumPy": rb"\x93NUMPY",
    "Git LFS pointer (run `git lfs pull`)": rb"version https://git-lfs",
    "zip": rb"PK\x03\x04",
    "gzip": rb"\x1f\x8b",
}
_DECODED = re.compile(
    b"|".join(b"(?P<%s>%s)" % (n.encode(), p) for n, p in _SIGNATURES.items()), re.S
)
_NOT_DECODED = [(name, re.compile(pattern, re.S)) for name, pattern in _OTHERS.items()]


def detect_format(encoded: bytes) -> str | None:
    """Return which of the decoded formats the bytes are in, such as ``"JPEG"``, or None."""
    match = _DECODED.match(encoded, 0, 160)
    return match.lastgroup if match else None


def describe_format(encoded: bytes) -> str:
    """Return what bytes look like that are in none of the decoded formats."""
    head = encoded[:2000]
    for name, pattern in _NOT_DECODED:
        if pattern.match(head):
            return name
    return "unknown format"
