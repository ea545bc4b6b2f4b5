import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import padim

PIL = pytest.importorskip("PIL.Image")
SIZE = (48, 48)


def good(i):
    y, x = np.mgrid[:56, :70]
    noise = (x * 7919 + y * 104729 + i * 1299721) % 17
    return np.stack([x * 3 // 2 % 200 + noise, y * 2 % 200 + noise, (x ^ y) + noise], axis=-1).astype(np.uint8)


def defective():
    image = good(2)
    image[24:40, 20:36] = (255, 0, 255)
    return image


def goods(first, count):
    return [good(i) for i in range(first, first + count)]


@pytest.fixture(scope="module")
def detector():
    detector = padim.Padim(input_size=SIZE).fit(goods(0, 12))
    detector.calibrate(goods(100, 19))
    return detector


def test_a_defect_is_found_where_it_is(detector):
    prediction = detector.predict(defective())
    assert prediction.is_defective is True and prediction.p_value == pytest.approx(1 / 20)
    assert prediction.image_score >= detector.threshold
    assert prediction.anomaly_map.shape == SIZE and prediction.anomaly_map.dtype == np.float32
    # No copy: the same memory each time.
    assert prediction.anomaly_map is prediction.anomaly_map
    original = prediction.original_map()
    assert original.shape == (56, 70) == prediction.original_size
    y, x = np.unravel_index(original.argmax(), original.shape)
    assert 20 <= y < 44 and 16 <= x < 40
    defect = detector.defects(prediction)[0]
    assert defect.top <= y < defect.top + defect.height and defect.peak == original.max()
    assert detector.predict(good(7)).image_score < prediction.image_score / 2
    for thing in (detector, prediction, defect):
        assert repr(thing).startswith("<padim.")


def test_all_kinds_of_images_of_the_same_pixels_score_the_same(detector, tmp_path):
    array = defective()
    path = tmp_path / "part.png"
    PIL.fromarray(array).save(path)
    expected = detector.predict(array).image_score
    strided = np.zeros((112, 140, 3), np.uint8)[::2, ::2]
    strided[:] = array
    assert not strided.flags.c_contiguous
    for image in [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), PIL.open(path), strided,
                  np.asfortranarray(array), np.dstack([array, np.full((56, 70), 255, np.uint8)])]:
        assert detector.predict(image).image_score == expected, type(image)
    gray = array[..., 0]
    expected = detector.predict(gray).image_score
    for image in [gray[..., None], np.repeat(gray[..., None], 3, axis=2), PIL.fromarray(gray)]:
        assert detector.predict(image).image_score == expected
    palette = PIL.fromarray(np.repeat(gray[..., None], 3, axis=2)).quantize(256, dither=PIL.Dither.NONE)
    assert detector.predict(palette).image_score == detector.predict(palette.convert("RGB")).image_score


def test_deep_images_keep_their_values():
    deep = lambda image: (image[..., 0].astype(np.uint16) << 8) | 0xFF
    unit = lambda image: deep(image).astype(np.float32) / 65535
    scores = []
    for kind in (deep, unit):
        detector = padim.Padim(input_size=SIZE, config={"preprocess": {"levels": {"bits": 16}}}) if kind is deep \
            else padim.Padim(input_size=SIZE)
        detector = detector.fit([kind(image) for image in goods(0, 8)])
        scores.append(detector.predict(kind(defective())).image_score)
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


@pytest.mark.parametrize("image, kind, word", [
    (np.zeros((4, 4), np.float64), padim.ImageError, "float64"),
    (np.zeros((4, 4), np.int32), padim.ImageError, "int32"),
    (np.zeros((4, 4), bool), padim.ImageError, "bool"),
    (np.zeros((4, 4, 5), np.uint8), padim.ImageError, "(4, 4, 5)"),
    (np.zeros(4, np.uint8), padim.ImageError, "(4,)"),
    (np.zeros((0, 4), np.uint8), padim.ImageError, "pixels"),
    (np.full((8, 8), np.nan, np.float32), padim.ImageError, "NaN"),
    (b"<html>", padim.ImageError, "given image"),
    (b"", padim.ImageError, "given image"),
    ("missing.png", padim.FileError, "missing.png"),
    (7, TypeError, "int"),
    (None, TypeError, "NoneType"),
])
def test_what_is_no_image_is_an_exception(detector, image, kind, word):
    with pytest.raises(kind, match=".*") as error:
        detector.predict(image)
    assert word in str(error.value)
    with pytest.raises(kind):
        detector.predict_batch([good(1), image])
    with pytest.raises(kind):
        padim.Padim(input_size=SIZE).fit([good(1), good(2), image])


def test_exceptions_have_a_hierarchy():
    for kind, base in [(padim.ConfigError, ValueError), (padim.ImageError, ValueError), (padim.FileError, OSError),
                       (padim.DetectorFileError, ValueError), (padim.Cancelled, Exception)]:
        assert issubclass(kind, padim.Error) and issubclass(kind, base)


def test_a_detector_goes_to_files_bytes_and_pickles(detector, tmp_path):
    path = tmp_path / "part.padim"
    detector.set_metadata({"product": "disk"})
    detector.save(path)
    data = detector.to_bytes()
    assert path.read_bytes() == data
    expected = detector.predict(defective())
    copies = [padim.Detector.load(path), padim.Detector.from_bytes(data), pickle.loads(pickle.dumps(detector)),
              copy.deepcopy(detector)]
    for other in copies:
        prediction = other.predict(defective())
        assert prediction.image_score == expected.image_score and prediction.p_value == expected.p_value
        assert (prediction.anomaly_map == expected.anomaly_map).all()
        assert other.metadata == {"product": "disk"} and other.threshold == detector.threshold
    for length in (0, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(padim.DetectorFileError):
            padim.Detector.from_bytes(data[:length])
    with pytest.raises(padim.FileError):
        padim.Detector.load(tmp_path / "missing.padim")
    with pytest.raises(padim.FileError):
        detector.save(tmp_path / "no" / "folder.padim")


def test_settings_are_checked():
    for estimator, word in [
        (padim.Padim(backbone="vgg"), "vgg"),
        (padim.Padim(config={"no_such_field": 1}), "no_such_field"),
        (padim.Padim(config={"batch_size": 0}), "batch_size"),
        (padim.Padim(input_size=(0, 4)), "resize"),
        (padim.Padim(weights="missing.pth"), "missing.pth"),
        (padim.Padim(contamination=2.0), "rate"),
    ]:
        with pytest.raises(padim.Error) as error:
            estimator.fit(goods(0, 8))
        assert word in str(error.value)
    with pytest.raises(padim.ConfigError):
        padim.Padim(input_size=SIZE).fit([])


def test_conventions_of_pyod_and_scikit_learn():
    estimator = padim.Padim(input_size=SIZE, contamination=0.2)
    assert estimator.get_params()["contamination"] == 0.2
    assert repr(estimator).startswith("Padim(")
    with pytest.raises(padim.ConfigError):
        estimator.decision_function([good(1)])
    with pytest.raises(padim.ConfigError):
        estimator.set_params(no=1)
    estimator.fit(goods(0, 20))
    assert estimator.threshold_ == estimator.detector_.threshold
    images = [good(50), defective()]
    scores = estimator.decision_function(images)
    assert scores.shape == (2,) and scores[1] > scores[0]
    assert estimator.predict(images).tolist() == [0, 1]

    sklearn = pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    again = clone(estimator)
    assert again.get_params() == estimator.get_params() and not hasattr(again, "detector_")
    pipeline = make_pipeline(FunctionTransformer(lambda images: [image[::1] for image in images]), again)
    pipeline.fit(goods(0, 20))
    assert pipeline.predict(images).tolist() == [0, 1]
    assert (pipeline.decision_function(images) == scores).all()
    assert (pickle.loads(pickle.dumps(estimator)).decision_function(images) == scores).all()


def test_progress_is_told_and_can_stop():
    seen = []
    padim.Padim(input_size=SIZE, config={"batch_size": 2}).fit(goods(0, 6), progress=lambda *p: seen.append(p))
    assert ("embedding", 6, 6) in seen
    estimator = padim.Padim(input_size=SIZE, config={"batch_size": 2})
    with pytest.raises(padim.Cancelled):
        estimator.fit(goods(0, 6), progress=lambda stage, done, total: done < 4)
    class Mine(Exception):
        pass
    def raises(*_):
        raise Mine("stop")
    with pytest.raises(Mine):
        estimator.fit(goods(0, 6), progress=raises)
    def broken():
        yield good(1)
        raise Mine("no more")
    with pytest.raises(Mine):
        estimator.fit(broken())
    # A generator is read while the network works.
    assert estimator.fit(good(i) for i in range(6)).predict(good(1)).is_defective is None


def test_control_c_stops_a_fit():
    code = """
import signal, sys, numpy, padim
# A program that runs in the background ignores Ctrl-C by default.
signal.signal(signal.SIGINT, signal.default_int_handler)
def endless():
    print("started", flush=True)
    while True:
        yield numpy.random.randint(0, 255, (300, 300, 3), numpy.uint8)
try:
    padim.Padim(config={"batch_size": 2}).fit(endless())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "started\n"
            time.sleep(1)
            child.send_signal(signal.SIGINT)
            assert child.communicate(timeout=60)[0] == "interrupted\n"
        finally:
            # A fit that goes on would take a processor for ever.
            child.kill()


def test_other_threads_of_python_run_meanwhile(detector):
    counter, stop = [0], threading.Event()
    def count():
        while not stop.is_set():
            counter[0] += 1
            time.sleep(0.001)
    thread = threading.Thread(target=count)
    thread.start()
    before = counter[0]
    large = np.random.RandomState(0).randint(0, 255, (3000, 4000, 3), np.uint8)
    for _ in range(3):
        detector.predict(large)
    stop.set()
    thread.join()
    assert counter[0] > before


def test_64_threads_share_a_detector(detector):
    expected = detector.predict(defective()).image_score
    wrong = []
    def work():
        if detector.predict(defective()).image_score != expected:
            wrong.append(1)
    threads = [threading.Thread(target=work) for _ in range(64)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_partial_fits_merge_in_any_order_and_go_by_pickle():
    estimator = padim.Padim(input_size=SIZE)
    whole = estimator.fit(goods(0, 24))
    parts = [estimator.partial_fit(goods(first, 6)) for first in (0, 6, 12, 18)]
    assert [part.image_count for part in parts] == [6] * 4
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        sent = [pickle.loads(pickle.dumps(parts[i])) for i in order]
        merged = padim.merge(sent)
        assert merged.image_count == 24
        detector = merged.finish()
        for image in (good(40), defective()):
            assert detector.predict(image).image_score == pytest.approx(whole.predict(image).image_score, rel=1e-4)
        with pytest.raises(padim.Error):
            merged.finish()
    with pytest.raises(padim.Error):
        parts[0].merged(padim.Padim(input_size=(32, 32)).partial_fit(goods(0, 6)))
    with pytest.raises(padim.Error):
        padim.merge([])


def test_a_detector_learns_on():
    estimator = padim.Padim(input_size=SIZE)
    detector = estimator.fit(goods(0, 12), extendable=True)
    detector.extend(goods(12, 12))
    whole = estimator.fit(goods(0, 24))
    assert detector.predict(defective()).image_score == pytest.approx(whole.predict(defective()).image_score, rel=1e-4)
    with pytest.raises(padim.Error):
        whole.extend(goods(24, 2))
    detector.set_threshold(5.0)
    assert detector.threshold == 5.0 and detector.predict(defective()).is_defective is True


def test_the_program_of_the_document_runs(detector, tmp_path, monkeypatch, capsys):
    document = (Path(__file__).parents[3] / "docs/deployment.md").read_text()
    code = document.split("```python\n")[1].split("```")[0]
    detector.save(tmp_path / "part.padim")
    PIL.fromarray(defective()).save(tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    score, verdict = capsys.readouterr().out.split()
    assert float(score) == detector.predict(defective()).image_score and verdict == "1"


@pytest.mark.skipif("PADIM_RUST_SCORES" not in os.environ, reason="no scores of Rust are given")
def test_scores_are_those_of_rust():
    """The file has lines `PATH SCORE`: `python.rs` writes them."""
    detector = padim.Detector.load(os.environ["PADIM_RUST_DETECTOR"])
    with open(os.environ["PADIM_RUST_SCORES"]) as lines:
        scores = dict(line.split() for line in lines)
    assert len(scores) == 10
    for path, score in scores.items():
        assert np.float32(detector.predict(path).image_score) == np.float32(score)
