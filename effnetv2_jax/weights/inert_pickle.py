"""Pickles as data: what one would import or call becomes a placeholder, so nothing in it can run.

The opcodes are Python's own (`pickletools`), but nothing here looks a name up or calls what it
found: a pickle of this reader's is numbers, text, containers of them, and `Inert`s.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

_PLAIN = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
"""Opcodes whose argument is the value."""
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_CODE_MODULES = frozenset(
    (
        *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy"),
        *("ctypes", "code", "codeop", "commands", "marshal", "pickle", "_pickle", "pty", "pip"),
        *("webbrowser", "timeit", "pdb", "bdb", "cProfile", "profile", "pydoc", "asyncio"),
        *("multiprocessing", "threading", "_thread", "signal", "urllib"),
    )
)
"""Of Python's, whose functions no checkpoint needs."""
_CODE_BUILTINS = frozenset(
    (
        *("eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"),
        *("apply", "globals", "locals", "setattr", "delattr", "exit", "quit"),
    )
)


class PickleError(ValueError):
    """A pickle that is damaged, or of a kind that is not read."""


class CodeError(PickleError):
    """A pickle that would run a program where it is loaded; the message names what."""


@dataclasses.dataclass(eq=False)
class Inert:
    """What a pickle would import, make or call: a name, arguments and contents, and no more."""

    name: str
    """Dotted: `argparse.Namespace`."""
    arguments: tuple[Any, ...] | None = None
    """None for what is only named."""
    state: Any = None
    """What would be made its attributes."""


Rebuild = Callable[[tuple[Any, ...]], Any]


def load(stream: BinaryIO, *, rebuild: dict[str, Rebuild], persistent: Callable[[Any], Any]) -> Any:
    """Reads one pickle, of any protocol.

    Args:
      stream: at the pickle's first byte; left behind its last.
      rebuild: by dotted name, what is made of the arguments where the pickle calls one; anything
        else that is called becomes an `Inert`.
      persistent: likewise of what the pickle refers to as stored outside of it.

    Raises:
      PickleError: it is damaged; a `CodeError` if it names functions that run programs.
    """
    try:
        return _Machine(rebuild, persistent).run(stream)
    except PickleError:
        raise
    except Exception as error:  # Damage shows as whatever the next opcode makes of it.
        raise PickleError(f"its pickle is damaged: {error!r}"[:200]) from error


class _Machine:
    def __init__(self, rebuild: dict[str, Rebuild], persistent: Callable[[Any], Any]) -> None:
        self.rebuild = rebuild
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _PLAIN:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            else:
                self._do(name, argument)
        raise PickleError("its pickle is cut off")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _take(self, count: int) -> list[Any]:
        items = self.stack[len(self.stack) - count :]
        if len(items) < count:
            raise PickleError("its pickle is damaged: it takes what is not there")
        del self.stack[len(self.stack) - count :]
        return items

    def _do(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "POP":
                stack.pop() if stack else self._since_mark()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._take(int(name[-1]))))
            case "LIST" | "FROZENSET":
                items = self._since_mark()
                self.stack.append(items)
            case "DICT":
                items = self._since_mark()
                self.stack.append(_pairs({}, items))
            case "APPEND":
                _extend(stack[-2], self._take(1))
            case "APPENDS" | "ADDITEMS":
                items = self._since_mark()
                _extend(self.stack[-1], items)
            case "SETITEM":
                _pairs(stack[-3], self._take(2))
            case "SETITEMS":
                items = self._since_mark()
                _pairs(self.stack[-1], items)
            case "GLOBAL" | "INST":
                found = _named(*argument.split(" ", 1))
                items = self._since_mark() if name == "INST" else []
                self.stack.append(self._call(found, tuple(items)) if name == "INST" else found)
            case "STACK_GLOBAL":
                stack.append(_named(*self._take(2)))
            case "REDUCE" | "NEWOBJ":
                stack.append(self._call(*self._take(2)))
            case "NEWOBJ_EX":
                kind, arguments, _ = self._take(3)
                stack.append(self._call(kind, arguments))
            case "OBJ":
                kind, *items = self._since_mark()
                self.stack.append(self._call(kind, tuple(items)))
            case "BUILD":
                (state,) = self._take(1)
                if isinstance(stack[-1], Inert):
                    stack[-1].state = state
            case "PERSID":
                stack.append(self.persistent(argument))
            case "BINPERSID":
                stack.append(self.persistent(*self._take(1)))
            case _:
                raise PickleError(f"its pickle has the opcode {name}, which is not read")

    def _call(self, what: Any, arguments: Any) -> Any:
        if not isinstance(what, Inert) or not isinstance(arguments, tuple):
            raise PickleError("its pickle is damaged: it calls what has no name")
        if what.arguments is None and what.name in self.rebuild:
            return self.rebuild[what.name](arguments)
        return Inert(what.name, arguments)


def _named(module: Any, name: Any) -> Inert:
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("its pickle is damaged: a name is no text")
    dotted = f"{module}.{name}"
    root = module.partition(".")[0]
    built_in = root in ("builtins", "__builtin__")
    if root in _CODE_MODULES or (built_in and name.partition(".")[0] in _CODE_BUILTINS):
        raise CodeError(dotted)
    return Inert(dotted)


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target += items


def _pairs(target: Any, items: list[Any]) -> Any:
    """Sets a dict's items; of keys that are no text and no number none can be asked for later."""
    if len(items) % 2:
        raise PickleError("its pickle is damaged: a key has no value")
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2]):
            if isinstance(key, str | int | float):
                target[key] = value
    return target
