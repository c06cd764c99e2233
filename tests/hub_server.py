"""A small server on the loopback address that serves repositories as the Hugging Face Hub does."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve(root: Path, *, revisions: tuple[str, ...] = ("main",)) -> Iterator["Hub"]:
    """Serves `root/OWNER/REPO/FILE` until the block is left."""
    hub = Hub(root, revisions)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Hub(http.server.ThreadingHTTPServer):
    """Answers `/OWNER/REPO/resolve/REVISION/FILE`; files over 1 kB count as stored in LFS."""

    def __init__(self, root: Path, revisions: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.revisions = root, revisions
        self.cut_off: int | None = None
        """Sends only so many bytes of every file."""
        self.flipped = False
        """Sends files with a wrong last byte."""
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if "/resolve/" not in self.path:  # The client asks for some other things as well.
            return self._refuse("EntryNotFound")
        owner, name, _, revision, *rest = self.path.lstrip("/").split("/")
        repository = self.server.root / owner / name
        file = repository.joinpath(*rest)
        if not repository.is_dir():
            return self._refuse("RepoNotFound")
        if revision not in (*self.server.revisions, COMMIT):
            return self._refuse("RevisionNotFound")
        if not file.is_file():
            return self._refuse("EntryNotFound")
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        if len(content) > 1000:
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if self.server.flipped and len(content) > 1000:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content[: self.server.cut_off])
        return None

    def _refuse(self, code: str) -> None:
        self.send_response(401 if code == "RepoNotFound" else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
