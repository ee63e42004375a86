r"""Compute scores with pytorch-ood that the tests compare with; writes ood_peers.json.

The library needs torch and is no test dependency. The values were made by::

    python -m venv peers
    peers/bin/pip install torch==2.14.1 pytorch-ood==0.4.0 numpy==2.4.6 \
        scikit-learn==1.9.1
    peers/bin/python tests/golden/make_ood_peers.py
"""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pytorch_ood.detector import (
    ASH,
    DICE,
    GEN,
    KNN,
    NCI,
    RMD,
    SCALE,
    SHE,
    VRA,
    EnergyBased,
    Entropy,
    GradNorm,
    KLMatching,
    Mahalanobis,
    MaxLogit,
    MaxSoftmax,
    NNGuide,
    OpenMax,
    ReAct,
    TemperatureScaling,
    ViM,
    fDBD,
)

N, M, K, D = 120, 40, 4, 12
LIBRARIES = ("pytorch-ood", "torch", "numpy", "scikit-learn")


def case() -> dict[str, np.ndarray]:
    """Return features, labels, a last layer and new rows, rounded to be stored."""
    rng = np.random.default_rng(40)
    weight, bias = rng.normal(size=(K, D)).round(3), (rng.normal(size=K) / 2).round(3)
    y = np.arange(N) % K
    h = np.maximum(weight[y] + rng.normal(size=(N, D)) + 0.8, 0).round(3)
    pull = 0.5 * weight[np.arange(M) % K]
    new = np.maximum(pull + rng.normal(size=(M, D)) + 0.8, 0).round(3)
    return {"weight": weight, "bias": bias, "y": y, "h": h, "new_h": new}


def scores(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the scores of every detector, in double precision where it allows."""
    h, new = torch.tensor(arrays["h"]), torch.tensor(arrays["new_h"])
    y = torch.tensor(arrays["y"])
    weight, bias = torch.tensor(arrays["weight"]), torch.tensor(arrays["bias"])
    head = torch.nn.Linear(D, K).double()
    head.weight.data, head.bias.data = weight, bias
    single = torch.nn.Linear(D, K)
    single.weight.data, single.bias.data = weight.float(), bias.float()

    def of_maps(maps: torch.Tensor) -> torch.Tensor:
        return head(maps.flatten(1))

    def maps(x: torch.Tensor) -> torch.Tensor:
        return x[:, :, None, None]

    z, new_z = head(h).detach(), head(new).detach()
    found = {
        "max-softmax": MaxSoftmax(None).predict_logits(new_z),
        "max-logit": MaxLogit(None).predict_logits(new_z),
        "energy": EnergyBased(None).predict_logits(new_z),
        "entropy": Entropy(None).predict_logits(new_z),
        "gen": GEN(None).predict_logits(new_z),
        "kl-matching": KLMatching(None).fit_logits(z, y).predict_logits(new_z),
        "knn": KNN(None).fit_features(h, y).predict_features(new),
        "vim": ViM(None, D // 2, weight, bias).fit_features(h, y).predict_features(new),
        "she": SHE(None, head).fit_features(h, y).predict_features(new),
        "fdbd": fDBD(None, single).fit_features(h).predict_features(new),
        "nci": NCI(None, single, 1e-4).fit_features(h).predict_features(new),
    }
    for name, method in (("mahalanobis", Mahalanobis), ("relative-mahalanobis", RMD)):
        fitted = method(None).fit_features(h.float(), y)
        found[name] = fitted.predict_features(new.float())
    # It takes every row of a class; the paper only those that are predicted rightly.
    right = z.argmax(dim=1) == y
    unknown = OpenMax(None, tailsize=20, alpha=3).fit_logits(z[right], y[right])
    # Distances to classes that no row of a batch is predicted as count as 0 there.
    found["openmax"] = unknown.predict_logits(torch.cat([new_z, z]))[:M]
    weights_only = GradNorm(head, param_filter=lambda name: name == "weight")
    found["gradnorm"] = weights_only.to("cpu").predict(new)
    tempered = TemperatureScaling(None)
    tempered.fit_logits(z, y)
    found["temperature-softmax"] = tempered.predict_logits(new_z)
    guide = NNGuide(None, single).fit_features(h, y)
    found["nnguide"] = guide.predict_features(new.float())
    found["dice"] = (
        DICE(None, weight, bias, 0.9).fit_features(h, y).predict_features(new)
    )
    for variant in "bps":
        ash = ASH(None, of_maps, variant=f"ash-{variant}", percentile=0.65)
        found[f"ash-{variant}"] = ash.predict_feature_maps(maps(new))
    found["scale"] = SCALE(None, of_maps, percentile=0.85).predict_feature_maps(
        maps(new)
    )
    react = ReAct(None, of_maps).fit_feature_maps(maps(h), y)
    found["react"] = react.predict_feature_maps(maps(new))
    vra = VRA(lambda x: x, of_maps, 0.1, 0.9)
    vra.fit_feature_maps(maps(h), y)
    found["vra"] = vra.predict_feature_maps(maps(new))
    return found


def main() -> None:
    """Write the case and the scores."""
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    arrays = case()
    document = {
        "versions": {name: version(name) for name in LIBRARIES},
        "case": {name: array.tolist() for name, array in arrays.items()},
        "scores": {
            name: values.detach().double().numpy().tolist()
            for name, values in scores(arrays).items()
        },
    }
    path = Path(__file__).with_name("ood_peers.json")
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
