"""Classifies pictures by the pooled features of known ones: no training at all.

    python experiments/examples/nearest_neighbours.py

With ImageNet weights of EfficientNet-Lite0, on the photographs that come with the package.
"""

from typing import Any

import jax
import numpy as np

from effnetv2_jax import load_pretrained, preprocess
from effnetv2_jax.config import DataConfig
from effnetv2_jax.data import open_source


def nearest(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, k: int = 10) -> np.ndarray:
    """The commonest label `[M]` among the k features `[N, C]` most like each of `[M, C]`."""
    known, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, asked))
    neighbours = np.argsort(-(asked @ known.T), axis=1)[:, :k]
    return np.array([np.bincount(labels[row]).argmax() for row in neighbours])


def main(
    model: str | None = "efficientnet-lite0", weights: Any = "in1k", count: int = 400
) -> float:
    """Prints and returns the share of held-out photographs that are right."""
    embedder, variables = load_pretrained(model, weights, num_classes=0)
    apply = jax.jit(lambda images: embedder.apply(variables, images, train=False))

    def features(split: Any) -> tuple[np.ndarray, np.ndarray]:
        source = open_source(DataConfig(), split)
        records = [source[index] for index in range(min(count, len(source)))]
        parts = [records[start : start + 16] for start in range(0, len(records), 16)]
        found = [apply(preprocess([r.encoded for r in part], like=embedder)) for part in parts]
        return np.concatenate(found), np.array([record.labels[0] for record in records])

    (known, labels), (asked, right) = features("train"), features("eval")
    share = float((nearest(known, labels, asked) == right).mean())
    print(f"{len(asked)} held-out photographs: {share:.1%} right")
    return share


if __name__ == "__main__":
    main()
