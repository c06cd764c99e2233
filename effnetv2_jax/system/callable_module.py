"""A package whose name is also that of a public function, and can be called as that."""

import importlib
import sys
import types
from typing import Any


def make_callable(name: str, home: str, function: str) -> None:
    """Lets `import NAME; NAME(...)` call a function of another module, which is imported then.

    Args:
      name: of a module that is imported already.
      home, function: the module that has the function, and its name there.
    """

    class CallableModule(types.ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(home), function)(*args, **kwargs)

    sys.modules[name].__class__ = CallableModule
