"""padim finds and localizes defects in images after seeing only good ones: the PaDiM method, without torch.

    import padim

    detector = padim.Padim().fit(["good/1.png", "good/2.png", ...])
    detector.calibrate(more_good_images)
    prediction = detector.predict("new.png")
    print(prediction.image_score, prediction.is_defective)

An image is a path, the bytes of an image file, a PIL image, or an array of `uint8`, `uint16` or `float32` of shape
(height, width) or (height, width, channels).
"""

from ._errors import Cancelled, ConfigError, DetectorFileError, Error, FileError, ImageError
from ._padim import Defect, Detector, PartialFit, Prediction, __version__
from ._estimator import Padim, merge

__all__ = [
    "Cancelled",
    "ConfigError",
    "Defect",
    "Detector",
    "DetectorFileError",
    "Error",
    "FileError",
    "ImageError",
    "Padim",
    "PartialFit",
    "Prediction",
    "__version__",
    "merge",
]
