"""Fits, with the conventions of PyOD and scikit-learn."""

import json
from functools import reduce

import numpy as np

from ._errors import ConfigError
from ._padim import Fitter


def merge(fits):
    """Merges partial fits, in any order, by twos (as a tree, so that rounding stays small)."""
    fits = list(fits)
    if not fits:
        raise ConfigError("there is no fit to merge")
    while len(fits) > 1:
        pairs = [fits[i : i + 2] for i in range(0, len(fits), 2)]
        fits = [reduce(lambda a, b: a.merged(b), pair) for pair in pairs]
    return fits[0]


class Padim:
    """Fits detectors on good images.

    backbone: "resnet18" (default) or "wide_resnet50".
    weights: a file with the network's weights (.safetensors or .pth of torchvision); None: those inside the
        package, which only "resnet18" has.
    input_size: (height, width) of the network's input; None: 224x224, the whole picture.
    contamination: the share of good images that may be called defective, if `fit` is to find a threshold by itself
        (cross-fitted: each image is scored by a detector without it). None: no threshold; see `Detector.calibrate`.
    config: other settings as a dict with the field names of the Rust type `PadimConfig`, such as
        {"batch_size": 8, "gaussian": {"epsilon": 0.001}}. Fields that are left out have their defaults.

    After `fit`: `detector_`, `threshold_` (None without one), `decision_function` (higher is more anomalous) and
    `predict` (1 for defective, 0 for good), as in PyOD.
    """

    def __init__(self, backbone="resnet18", weights=None, input_size=None, contamination=None, config=None):
        self.backbone = backbone
        self.weights = weights
        self.input_size = input_size
        self.contamination = contamination
        self.config = config

    _names = ("backbone", "weights", "input_size", "contamination", "config")

    def get_params(self, deep=True):
        return {name: getattr(self, name) for name in self._names}

    def set_params(self, **params):
        for name, value in params.items():
            if name not in self._names:
                raise ConfigError(f"there is no parameter {name!r}; expected one of {', '.join(self._names)}")
            setattr(self, name, value)
        return self

    def __repr__(self):
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value is not None]
        return f"Padim({', '.join(changed)})"

    def __sklearn_is_fitted__(self):
        return hasattr(self, "detector_")

    def __sklearn_tags__(self):
        # scikit-learn asks for it, so it is there.
        from sklearn.utils import Tags, TargetTags

        return Tags(
            estimator_type="outlier_detector",
            target_tags=TargetTags(required=False),
            transformer_tags=None,
            classifier_tags=None,
            regressor_tags=None,
        )

    def _fitter(self):
        config = dict(self.config or {})
        if self.input_size is not None:
            height, width = self.input_size
            preprocess = dict(config.get("preprocess", {}))
            preprocess["resize"] = {"exact": {"height": int(height), "width": int(width)}}
            config["preprocess"] = preprocess
        return Fitter(json.dumps(config), self.backbone, self.weights)

    def fit(self, images, y=None, progress=None, extendable=False):
        """Fits on good images, and gives the Detector.

        images: an iterable; a generator is read while the network works.
        progress: called with (stage, done, total); it may return False to stop the fit.
        extendable: keeps what `Detector.extend` needs, which takes several times the memory.
        """
        if self.contamination is None:
            detector = self._fitter().fit(images, extendable, progress)
        elif extendable:
            raise ConfigError("choose one: contamination, or extendable and then Detector.calibrate")
        else:
            rate = float(self.contamination)
            detector = self._fitter().fit_calibrated(images, rate, 0.001, 5, progress)
        self.detector_ = detector
        self.threshold_ = detector.threshold
        return detector

    def partial_fit(self, images, progress=None):
        """The statistics of some good images, as a PartialFit: see `merge`."""
        return self._fitter().partial_fit(images, progress)

    def _fitted(self):
        if not hasattr(self, "detector_"):
            raise ConfigError("this Padim is not fitted yet; call fit first")
        return self.detector_

    def decision_function(self, images):
        """The image scores. Higher means more anomalous."""
        return self._fitted().scores(images)

    def predict(self, images):
        """1 for a defective image, 0 for a good one."""
        threshold = self._fitted().threshold
        if threshold is None:
            raise ConfigError("there is no threshold: set contamination, or call detector_.calibrate")
        return (self.decision_function(images) >= threshold).astype(np.int64)

    def fit_predict(self, images, y=None):
        self.fit(images)
        return self.predict(images)
