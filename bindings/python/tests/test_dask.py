import os
import signal
import threading
import time

import numpy as np
import pytest

from test_padim import defective, good

distributed = pytest.importorskip("dask.distributed")
PIL = pytest.importorskip("PIL.Image")

import padim
import padim.dask


def test_a_cluster_fits_as_one_process_although_a_worker_dies(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    files = []
    for i in range(96):
        files.append(str(tmp_path / f"{i:03}.png"))
        PIL.fromarray(good(i)).save(files[-1])
    estimator = padim.Padim(input_size=(64, 64))
    alone = estimator.fit(files)
    with distributed.LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            pids = client.run(os.getpid)
            assert len(set(pids.values())) == 4
            killed = []

            def kill():
                # As soon as a worker has done something, so that its results are lost.
                while not any(client.has_what().values()):
                    time.sleep(0.01)
                address = max(client.has_what().items(), key=lambda item: len(item[1]))[0]
                os.kill(pids[address], signal.SIGKILL)
                killed.append(address)

            thread = threading.Thread(target=kill)
            thread.start()
            detector = padim.dask.fit(client, estimator, files, shard=4)
            thread.join()
            assert killed and pids != client.run(os.getpid), "another process took the place of the killed one"
            images = [str(tmp_path / "000.png"), str(tmp_path / "bad.png")]
            PIL.fromarray(defective()).save(images[1])
            scores = padim.dask.score(client, detector, images, shard=1)
    expected = alone.scores(images)
    print(f"killed {killed[0]}; scores {scores} in the cluster, {expected} alone")
    assert (scores == detector.scores(images)).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    map_of = lambda detector: detector.predict(images[1]).anomaly_map
    np.testing.assert_allclose(map_of(detector), map_of(alone), rtol=1e-3, atol=1e-3)
