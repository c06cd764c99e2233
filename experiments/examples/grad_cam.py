"""Grad-CAM (arXiv 1610.02391): which places of a picture speak for a class.

    python experiments/examples/grad_cam.py runs/mine cat.jpg

An EfficientNet's classifier is linear in the means of its last maps, so the gradient of a logit by
a map is the same at every place, and it stands in the classifier's kernel.
"""

import sys
from typing import Any

import jax
import numpy as np

from effnetv2_jax import load_pretrained, preprocess


def grad_cam(model: Any, variables: Any, images: Any, label: int) -> jax.Array:
    """Maps `[B, H / 32, W / 32]`, 0 and above, of normalised images `[B, H, W, 3]`."""
    _, state = model.apply(
        variables,
        images,
        train=False,
        capture_intermediates=lambda module, _: module.path == ("head",),
        mutable=["intermediates"],
    )
    (maps,) = state["intermediates"]["head"]["__call__"]
    gradient = variables["params"]["classifier"]["kernel"][:, label] / maps[0, :, :, 0].size
    return jax.nn.relu(maps @ gradient)


def main(weights: str, picture: str) -> None:
    """Prints the most probable class, and its map as shares of the largest value."""
    model, variables = load_pretrained(None, weights)
    images = preprocess(picture, like=model)
    label = int(model.apply(variables, images, train=False)[0].argmax())
    found = np.asarray(grad_cam(model, variables, images, label)[0])
    print(model.class_names[label] if model.class_names else f"class {label}")
    print(np.round(found / (found.max() or 1), 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
