"""Files from the Hugging Face Hub, through its own client: its cache, offline mode and token."""

import os
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from effnetv2_jax.system.checksums import file_sha256
from effnetv2_jax.weights.errors import WeightsError

WEIGHTS = "model.safetensors"
TORCH_WEIGHTS = "pytorch_model.bin"
"""In repositories without the file of that other format."""
KERAS_WEIGHTS = "model.keras"
CONFIG = "config.json"

CONNECT_SECONDS = 5.0

_ADDRESS = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class NoSuchFileError(WeightsError):
    """A repository lacks a file."""


class UnreachableError(WeightsError):
    """The Hub cannot be asked, and the cache does not have the file."""


class Address(NamedTuple):
    """A repository on the Hub."""

    repository: str
    """`owner/name`."""
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads `owner/name` or `owner/name@revision`."""
        match = _ADDRESS.fullmatch(text)
        if not match:
            raise WeightsError(
                f"'hub:{text}' should look like hub:OWNER/REPO or hub:OWNER/REPO@REV"
            )
        return cls(match["repository"], match["revision"])

    def __str__(self) -> str:
        return f"hub:{self.repository}" + (f"@{self.revision}" if self.revision else "")


def download(address: Address, filename: str) -> Path:
    """The local copy of a repository's file, downloaded unless the cache has it.

    Raises:
      WeightsError: there is no such repository, revision or file (then a `NoSuchFileError`), the
        Hub cannot be reached, or what arrived is damaged.
    """
    # Imported here: it takes half a second, and only weights from the Hub need it.
    import huggingface_hub
    from huggingface_hub import constants, errors

    where, endpoint = f"{address}: {filename}", constants.ENDPOINT
    reached = answers(endpoint)
    try:
        path = huggingface_hub.hf_hub_download(
            address.repository,
            filename,
            revision=address.revision,
            local_files_only=not reached,
        )
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{address} asks for permission; request it on its page, then run: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{address}: the Hub has no such repository, or a private one (then: hf auth login)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{address}: the repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise UnreachableError(
            f"{where} is not in the cache, and the Hub cannot be asked: offline (HF_HUB_OFFLINE) "
            f"or out of reach ({_reason(error) if reached else f'nobody answers at {endpoint}'})"
        ) from error
    except errors.EntryNotFoundError as error:
        raise NoSuchFileError(f"{where}: the repository has no such file") from error
    except errors.HFValidationError as error:
        raise WeightsError(f"{address}: {error}") from error
    except Exception as error:
        # Its HTTP library's errors too, and that library changes with the client's versions.
        raise UnreachableError(f"{where} could not be downloaded: {_reason(error)}") from error
    _check_hash(Path(path), where)
    return Path(path)


def answers(endpoint: str) -> bool:
    """Whether somebody listens there; the client itself would try again for half a minute."""
    parts = urllib.parse.urlsplit(endpoint)
    if urllib.request.getproxies() or parts.hostname is None:
        return True  # Somebody else knows the way.
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _check_hash(path: Path, where: str) -> None:
    """Compares a large file with the SHA-256 after which the cache names it.

    The client compares sizes only.
    """
    blob = Path(os.path.realpath(path))
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return  # Small files have another kind of name, and Windows may copy instead of link.
    found = file_sha256(blob)
    if found != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"{where} arrived damaged (SHA-256 {found}, not {blob.name}) and was removed from the "
            "cache; try again"
        )


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]
