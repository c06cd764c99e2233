"""Writes the sets here, with Hugging Face's own library (datasets 5.2).

pip install datasets pillow
python tests/huggingface/write.py
"""

import io
import pathlib

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

ROOT = pathlib.Path(__file__).parent


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(start: int, stop: int) -> list[dict[str, object]]:
    return [{"bytes": picture(n), "path": f"{n}.png"} for n in range(start, stop)]


def main() -> None:
    one = Features({"image": ImageFeature(), "label": ClassLabel(names=["dog", "cat", "owl"])})
    train, test = (
        Dataset.from_dict(
            {"image": pictures(*bounds), "label": [n % 3 for n in range(*bounds)]}, features=one
        )
        for bounds in ((0, 9), (9, 12))
    )
    sets = DatasetDict({"train": train, "test": test})
    sets.save_to_disk(ROOT / "splits", num_shards={"train": 2, "test": 1})
    (ROOT / "parquet" / "data").mkdir(parents=True, exist_ok=True)
    train.to_parquet(ROOT / "parquet/data/train-00000-of-00001.parquet", batch_size=4)
    test.to_parquet(ROOT / "parquet/data/test-00000-of-00001.parquet")
    tags = Features(
        {
            "img": ImageFeature(),
            "tags": List(ClassLabel(names=["a", "b", "c"])),
            "text": Value("string"),
        }
    )
    several = {
        "img": [{"bytes": picture(n), "path": None} for n in range(6)],
        "tags": [[1], [0, 2], [], [1], [0, 1], [2]],
        "text": [f"n{n % 2}" for n in range(6)],
    }
    Dataset.from_dict(several, features=tags).save_to_disk(ROOT / "tags")


if __name__ == "__main__":
    main()
