"""The values of masks for segmentation, which are class numbers and no colors."""

import io

import numpy as np
from PIL import Image

from flax_resnet.images.headers import HeaderError

_GRAY, _PALETTE = 0, 3  # color types of PNG
_SCALE = {2: 85, 4: 17}  # by which Pillow multiplies gray values of these bits
_ADVICE = "save masks as gray or palette PNG, in which a pixel's value is the number of its class"


def mask_values(encoded: bytes) -> np.ndarray:
    """Return the values of a PNG as stored, uint8 ``(H, W)``.

    Raises:
      HeaderError: it has colors or an alpha, or 16-bit values above 255.
    """
    depth, color = encoded[24], encoded[25]
    with Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
        if color not in (_GRAY, _PALETTE):
            raise HeaderError(_describe_colors(image))
        values = np.asarray(image)
    if depth == 16 and values.max(initial=0) > 255:
        raise HeaderError(
            f"a mask of 16 bits with the value {values.max():,}; class numbers are at most 255"
        )
    if color == _GRAY:
        values = values // _SCALE.get(depth, 1)
    return values.astype(np.uint8)


def _describe_colors(image: Image.Image) -> str:
    """Return why a mask with several channels is refused, and what to do."""
    if image.mode in ("LA", "I;16A"):
        return f"a mask of gray values with an alpha; {_ADVICE}"
    colors = image.convert("RGB").getcolors(maxcolors=256)
    if colors is None:
        return f"a picture with more than 256 colors, not a mask; {_ADVICE}"
    if all(red == green == blue for _, (red, green, blue) in colors):
        return f"a mask of gray values in three channels; {_ADVICE}, here one of the channels"
    named = [f"#{bytes(color).hex()}" for _, color in sorted(colors, reverse=True)[:4]]
    more = ", …" * (len(colors) > len(named))
    return (
        f"a mask of {len(colors)} colors ({', '.join(named)}{more}), whose classes are not known;"
        f" {_ADVICE}"
    )
