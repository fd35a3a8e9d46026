"""Stand-ins for packages that only reading sound needs, so that all else runs on a machine without them."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

PACKAGES = ("soundfile", "soxr")


class Absent(ModuleType):
    """A module that can be imported, and whose names say that they lack when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def lacking(cls: type, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"{self.__name__} isn't installed here, and {name} was asked of it")

        # Something to derive from, to catch, or to call.
        made = type(name, (Exception,), {"__new__": lacking})
        setattr(self, name, made)
        return made


def stand_in() -> None:
    """For those of `PACKAGES` that aren't there."""
    for name in PACKAGES:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = Absent(name)


def pytest_configure(config: Any) -> None:
    """As a plug-in (`pytest -p tests.gpu.absent`), for tests that import what they don't use."""
    stand_in()


def reads_sound() -> bool:
    """Whether files of sound can be read and resampled here."""
    return not any(isinstance(sys.modules.get(name), Absent) for name in PACKAGES)
