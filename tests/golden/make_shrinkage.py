"""Golden values of covariance shrinkage: scikit-learn's Ledoit-Wolf and OAS estimates.

    python make_shrinkage.py      (numpy, scikit-learn, safetensors)
"""

import numpy as np
from safetensors.numpy import save_file
from sklearn.covariance import ledoit_wolf, oas

rng = np.random.default_rng(7)
cases = {
    "few": rng.normal(size=(12, 20)) @ rng.normal(size=(20, 20)) * 0.3 + 5.0,
    "many": rng.normal(size=(70, 6)) @ rng.normal(size=(6, 6)) - 2.0,
    "isotropic": rng.normal(size=(40, 9)),
}
tensors = {}
for name, x in cases.items():
    x = x.astype(np.float32)
    tensors[f"{name}/x"] = x
    for estimator in (ledoit_wolf, oas):
        covariance, shrinkage = estimator(x.astype(np.float64))
        print(name, estimator.__name__, shrinkage)
        tensors[f"{name}/{estimator.__name__}"] = covariance
save_file(tensors, "shrinkage.safetensors")
