"""Modules import downward only; what is below knows nothing of what is above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hybridq"
LAYERS = [
    ["errors", "lifecycle", "_units", "guard"],
    ["job", "agent_records", "health", "keys", "scopes", "tokens", "credential"],
    ["retry", "codec", "scripts"],
    ["call"],
    ["ops", "connect"],
    ["runner", "bell"],
    ["coalesce"],
    ["parking"],
    ["embedded"],
    ["backend"],
    ["watch"],
    ["_base"],
    ["client"],
    ["aio"],
    ["access", "_fleet", "fleet"],
    ["heart", "_report", "_interrupt"],
    ["hold"],
    ["testing", "worker", "agent", "check", "doctor"],
    ["demo"],
    ["cli"],
]
"""Lowest first. Modules of one layer may know each other only within the same package, or in the order they stand."""

RANK = {name: (level, place) for level, names in enumerate(LAYERS) for place, name in enumerate(names)}
LATE = {
    "backend": {"embedded"},
    "client": {"hold", "heart"},
    "aio": {"hold", "heart"},
    "embedded": {"testing"},
}
"""Imports inside functions or for the type checker alone, which start nothing and close no circle at import."""


def _imports(path: Path) -> dict[str, bool]:
    """module of the package → whether some import of it stands at the top level, outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    depth = len(path.relative_to(PACKAGE).parts)
    found: dict[str, bool] = {}

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inner = top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inner = False
            if isinstance(child, ast.ImportFrom):
                for name in _names(child, depth):
                    found[name] = found.get(name, False) or top
            visit(child, inner)

    visit(tree, True)
    return found


def _names(node: ast.ImportFrom, depth: int) -> list[str]:
    if node.level == depth:
        return [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
    if node.level == 0 and node.module and node.module.split(".")[0] == "hybridq":
        parts = node.module.split(".")
        return [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
    return []


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    """The order of `LAYERS` is the order in which the house can be read."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} has no layer"

    for name, top in _imports(path).items():
        if name == own or name not in RANK:
            continue
        late = not top and name in LATE.get(own, set())
        assert RANK[name] < RANK[own] or late, f"{own} imports {name}, which stands above it"


def test_only_the_transport_knows_redis() -> None:
    """Clients of redis-py are made in `connect`, and used where calls travel, ring, or are looked at from outside."""
    knows = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "redis" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "redis")
    }

    assert knows <= {"connect", "runner", "bell", "embedded", "check", "doctor", "watch"}


def test_the_library_never_imports_the_http_side() -> None:
    """`cli` alone will load it, when asked to serve."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "litestar" not in text, path
