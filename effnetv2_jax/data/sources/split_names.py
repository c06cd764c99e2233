"""What the names of folders say: which part of a data set, or which kind of file, is in them."""

import re
import unicodedata
from typing import Literal

Role = Literal["train", "val", "test"]

_WORDS: dict[Role, str] = {
    "train": "train training trainval trn",
    "val": "val valid validate validation dev devel eval evaluation",
    "test": "test tests testing tst",
}
_FILLERS = (
    "set sets data dataset datasets image images img imgs picture pictures pic pics photo photos "
    "jpg jpeg png file files folder folders dir split splits subset part fold sample samples x px "
    "class classes full final new raw orig original clean cleaned processed preprocessed resized "
    "cropped small large labelled labeled my"
)
_KINDS = (
    "image images img imgs picture pictures pic pics photo photos jpegimages rgb label labels mask "
    "masks annotation annotations segmentation segmentations groundtruth gt bboxes boxes thumbnail "
    "thumbnails"
)


def _any_of(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


_FILLER = f"(?:{_any_of(_FILLERS)})*"
_SPLITS = {
    role: re.compile(f"{_FILLER}(?:{_any_of(words)}){_FILLER}") for role, words in _WORDS.items()
}
_ROLE_OF_WORD = {word: role for role, words in _WORDS.items() for word in words.split()}
_KIND_NAMES = frozenset(_KINDS.split())
_TOKENS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")


def role_of(name: str) -> Role | None:
    """The split that a folder's name means, in any case and the usual compounds; None for none.

    `Training`, `train_set`, `imgs-train`, `TrainData` and `train2017` mean `train`.
    """
    letters = "".join(filter(str.isalpha, unicodedata.normalize("NFKC", name).casefold()))
    roles = [role for role, pattern in _SPLITS.items() if pattern.fullmatch(letters)]
    return roles[0] if len(roles) == 1 else None


def without_role(name: str) -> tuple[tuple[str, ...], Role | None]:
    """The words of a name, and the split that one of them means: `cats_train` is cats, train."""
    tokens = [token.casefold() for token in _TOKENS.findall(unicodedata.normalize("NFKC", name))]
    roles = [_ROLE_OF_WORD[token] for token in tokens if token in _ROLE_OF_WORD]
    rest = tuple(token for token in tokens if token not in _ROLE_OF_WORD)
    return rest, roles[0] if len(roles) == 1 else None


def is_kind(name: str) -> bool:
    """Whether a name says what kind of files a folder holds, as `images` and `masks` do."""
    return "".join(filter(str.isalpha, name.casefold())) in _KIND_NAMES
