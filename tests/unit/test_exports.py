"""What `import hybridq` gives is what it says it gives, typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hybridq


@pytest.mark.parametrize("name", hybridq.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    """Also those that are loaded only when asked for."""
    assert getattr(hybridq, name) is not None


def test_the_list_is_sorted_and_has_no_name_twice() -> None:
    """Capitals first, as ASCII has it."""
    assert sorted(set(hybridq.__all__)) == list(hybridq.__all__)
    assert sorted(hybridq.__all__) == dir(hybridq)


def test_the_package_says_that_it_is_typed() -> None:
    """PEP 561."""
    assert (Path(hybridq.__file__).parent / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    """And names itself."""
    with pytest.raises(AttributeError, match="quue"):
        _ = hybridq.quue


def test_importing_the_library_does_not_load_asyncio_redis_nor_the_command_line() -> None:
    """They take long to import, and a script that enqueues one job needs neither."""
    code = "import sys, hybridq; print(sorted({'redis.asyncio', 'rich', 'litestar', 'fakeredis'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()
