"""Turns what people call an image into what the library takes: a path, the bytes of a file, or the type, the shape
(height, width, channels) and the bytes of an array."""

import os

import numpy as np

from ._errors import ImageError

_TYPES = (np.uint8, np.uint16, np.float32)
# The modes of PIL whose arrays are right as they are. A palette or CMYK is converted.
_MODES = {"L", "LA", "RGB", "RGBA", "I;16"}


def convert(image):
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert"):
        if image.mode not in _MODES:
            transparent = "transparency" in getattr(image, "info", {})
            image = image.convert("RGBA" if transparent else "RGB")
    elif not hasattr(image, "__array__") and not hasattr(image, "__array_interface__"):
        raise TypeError(
            f"expected a path, the bytes of an image file, a PIL image or an array, got {type(image).__name__}"
        )
    array = np.asarray(image)
    if array.dtype not in _TYPES:
        raise ImageError(
            f"an array of {array.dtype} is not an image: expected uint8, uint16 or float32; convert it by "
            "array.astype"
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or (array.dtype == np.float32 and channels == 2):
        raise ImageError(
            f"an array of shape {array.shape} is not an image: expected (height, width) or (height, width, "
            "channels) with 1, 3 or 4 channels"
        )
    return array.dtype.name, (*array.shape[:2], channels), array.tobytes()
