"""The Hugging Face client, talking to a server on this machine: cache, revisions and faults."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import tiny
from hub_server import COMMIT, Hub, serve
from random_weights import random_variables, thin
from safetensors.numpy import load_file
from torch_file import write_torch_file

from effnetv2_jax import WeightsError, create_model, save_pretrained
from effnetv2_jax.train.initial import initial_model
from effnetv2_jax.weights.hub import answers

REPOSITORY = "someone/thin"
OWN = "someone/own"
OLD = "someone/old"
PUBLISHED = "timm/tf_efficientnetv2_b0.in1k"
MODEL = thin(class_names=tuple("abcdefg"))

SCRIPT = """
import json, sys
import numpy as np
from effnetv2_jax import WeightsError, load_pretrained
results = []
for weights, name in json.loads(sys.argv[1]):
    try:
        model, variables = load_pretrained(name, weights)
        results.append({
            "classes": model.num_classes,
            "names": list(model.class_names[:2]),
            "size": model.preprocessing.image_size,
            "bias": np.asarray(variables["params"]["classifier"]["bias"]).tolist(),
        })
    except WeightsError as error:
        results.append(str(error))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories of ours and of timm's layout."""
    root = tmp_path_factory.mktemp("hub")
    save_pretrained(root / REPOSITORY, MODEL, random_variables(MODEL))
    save_pretrained(root / OWN, MODEL, random_variables(MODEL), library="effnetv2_jax")
    published = create_model("efficientnetv2-b0")
    save_pretrained(root / PUBLISHED, published, random_variables(published))
    (root / PUBLISHED / "config.json").unlink()  # Known weights need none.
    (root / OLD).mkdir()
    shutil.copy(root / REPOSITORY / "config.json", root / OLD)
    arrays = load_file(root / REPOSITORY / "model.safetensors")
    write_torch_file(root / OLD / "pytorch_model.bin", arrays)
    return root


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with serve(root, revisions=("main", "v1")) as hub:
        yield hub


def load(
    hub: Hub, home: Path, *weights: str, name: str | None = None, offline: bool = False
) -> list[Any]:
    """What a fresh process gets for each of the weights: what it loaded, or the error."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "JAX_PLATFORMS": "cpu",
    }
    asked = json.dumps([[each, name] for each in weights])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, asked],
        env=environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_weights_come_with_their_names_and_once_in_the_cache_need_no_hub(
    hub: Hub, tmp_path: Path
) -> None:
    places = [f"hub:{REPOSITORY}@{revision}" for revision in ("main", "v1", COMMIT)]
    online = load(hub, tmp_path, f"hub:{REPOSITORY}", *places)
    bias = random_variables(MODEL)["params"]["classifier"]["bias"]
    for found in online:
        np.testing.assert_array_equal(np.float32(found.pop("bias")), bias)
        assert found == {"classes": 7, "names": ["a", "b"], "size": 224}
    weights = [request for request in hub.asked if request.endswith("/model.safetensors")]
    assert sum(request.startswith("GET") for request in weights) == 1
    hub.asked.clear()
    offline = load(hub, tmp_path, f"hub:{REPOSITORY}", *places, offline=True)
    assert [found["classes"] for found in offline] == [7] * 4
    assert hub.asked == []


def test_our_own_format_and_pytorchs_are_read_as_well(hub: Hub, tmp_path: Path) -> None:
    own, timms, old = load(hub, tmp_path, f"hub:{OWN}", f"hub:{REPOSITORY}", f"hub:{OLD}")
    assert own == timms == old
    assert (hub.root / OLD / "pytorch_model.bin").exists()
    assert "params/stem/conv/kernel" in load_file(hub.root / OWN / "model.safetensors")


def test_tags_are_timms_repositories(hub: Hub, tmp_path: Path) -> None:
    tag, repository = load(hub, tmp_path, "in1k", f"hub:{PUBLISHED}", name="efficientnetv2-b0")
    assert tag == repository
    assert tag["names"] == [
        "tench, Tinca tinca",
        "goldfish, Carassius auratus",
    ]
    assert (tag["classes"], tag["size"]) == (1000, 224)


def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    asked = [f"hub:{REPOSITORY}@v2", "hub:someone/else", "hub:timm/tf_efficientnetv2_s.in1k"]
    revision, repository, published = load(hub, tmp_path, *asked)
    assert revision == f"hub:{REPOSITORY}@v2: the repository has no such revision"
    assert repository.startswith("hub:someone/else: the Hub has no such repository")
    assert published.startswith("hub:timm/tf_efficientnetv2_s.in1k: the Hub has no such repository")
    (missing,) = load(hub, tmp_path, f"hub:{REPOSITORY}", offline=True)
    assert "config.json is not in the cache, and the Hub cannot be asked: offline" in missing
    (hub.root / "someone" / "empty").mkdir(exist_ok=True)
    (empty,) = load(hub, tmp_path, "hub:someone/empty")
    assert empty == "hub:someone/empty: config.json: the repository has no such file"


def test_a_wrong_hash_is_found_and_does_not_stay_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    hub.flipped = True
    (damaged,) = load(hub, tmp_path, f"hub:{REPOSITORY}")
    content = (hub.root / REPOSITORY / "config.json").read_bytes()
    assert "config.json arrived damaged (SHA-256" in damaged
    assert hashlib.sha256(content).hexdigest() in damaged
    assert "removed from the cache" in damaged
    hub.flipped = False
    (whole,) = load(hub, tmp_path, f"hub:{REPOSITORY}")
    assert whole["classes"] == 7


def test_a_download_that_breaks_off_is_an_error_and_the_next_one_goes_on(
    hub: Hub, tmp_path: Path
) -> None:
    hub.cut_off = 1000
    (broken,) = load(hub, tmp_path, f"hub:{REPOSITORY}")
    assert "could not be downloaded" in broken
    hub.cut_off = None
    (whole,) = load(hub, tmp_path, f"hub:{REPOSITORY}")
    assert whole["classes"] == 7


def test_without_the_hub_a_run_says_at_once_what_starts_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert answers(endpoint)
    assert not answers(endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    run = tiny.experiment(init="in1k", model=tiny.NAMED)
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=f"nobody answers at {endpoint}") as raised:
        initial_model(run, ("a", "b"), None)
    assert time.monotonic() - begun < 20
    for what in ("--config.init=PATH", "configs/finetune.py:lite", "configs/folder.py"):
        assert what in str(raised.value)
