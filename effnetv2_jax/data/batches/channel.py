"""Objects, and file descriptors with them, from one process of a machine to another."""

import errno
import os
import pickle
import socket
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("<Q")


class Channel:
    """One end of a pair of sockets. Any thread may send, one at a time receives."""

    def __init__(self, end: socket.socket) -> None:
        """Takes the socket over."""
        self._socket = end
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, message: Any, descriptor: int | None = None) -> None:
        """Sends an object that can be pickled; whole, or not at all.

        Raises:
          OSError: the other end has gone, or there is no room.
        """
        data = pickle.dumps(message)
        data = _LENGTH.pack(len(data)) + data
        descriptors = [] if descriptor is None else [descriptor]
        with self._lock:
            sent = socket.send_fds(self._socket, [data], descriptors)
            self._socket.sendall(data[sent:])

    def receive(self) -> tuple[Any, int | None]:
        """Waits for an object, and the file descriptor that came with it, which the caller closes.

        Raises:
          EOFError, ConnectionError: the other end has gone.
          OSError: this process has no room for another file descriptor.
        """
        data, descriptors, flags, _ = socket.recv_fds(self._socket, _LENGTH.size, 1)
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        data += self._exactly(_LENGTH.size - len(data))
        message = pickle.loads(self._exactly(*_LENGTH.unpack(data)))
        return message, descriptors[0] if descriptors else None

    def end(self) -> None:
        """Says that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with self._lock:
            self._socket.close()

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            parts.append(self._socket.recv(min(count, 2**20)))
            if not parts[-1]:
                raise EOFError("the other process has gone")
            count -= len(parts[-1])
        return b"".join(parts)
