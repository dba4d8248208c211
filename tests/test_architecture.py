"""The rules of docs/architecture.md, read from the imports of the source files."""

import ast
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BELOW = {
    "crystal_env": set(),
    "rewards": {"crystal_env"},
    "agents": {"crystal_env"},
    "benchmarks": {"crystal_env", "rewards", "agents"},
}
"""Package -> the packages that it may import."""

FORBIDDEN = [
    *permutations(["agents.klppo", "agents.supervised", "agents.search"], 2),
    *((low, high) for low in ("agents.sb3", "agents.training") for high in ("agents.klppo", "agents.supervised")),
    *(("agents.crystalformer", f"agents.{name}") for name in ("klppo", "supervised", "search", "sb3", "training")),
    *(("benchmarks.metrics", f"benchmarks.{name}") for name in ("tasks", "harness", "report", "evaluation")),
    *(("benchmarks.harness", f"benchmarks.{name}") for name in ("report", "baselines", "cli", "paper")),
    *((f"crystal_env.{name}", "crystal_env.crystal") for name in ("geometry", "checks", "encoding")),
    ("crystal_env.symmetry.canonical", "crystal_env.crystal"),
]  # fmt: skip
"""Module or folder -> what it must not import."""

MAX_FILES = 20


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_of(path): path for package in BELOW for path in sorted((ROOT / package).rglob("*.py"))}


def imports(path: Path, lazy: bool = True) -> Iterator[str]:
    """Yield the modules of the project that a file imports, those for type checking alone left out.

    Args:
        path: the file.
        lazy: also imports inside functions.
    """
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef) and not lazy:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] in BELOW:
                yield name if name in SOURCES else name.rpartition(".")[0]
        waiting += ast.iter_child_nodes(node)


IMPORTS = {module: set(imports(path)) for module, path in SOURCES.items()}


def is_in(module: str, folder: str) -> bool:
    return module == folder or module.startswith(folder + ".")


def test_packages_import_only_what_lies_below():
    for module, found in IMPORTS.items():
        package = module.partition(".")[0]
        above = {name for name in found if name.partition(".")[0] not in BELOW[package] | {package}}
        assert not above, f"{module} imports {above}"


@pytest.mark.parametrize(("folder", "other"), FORBIDDEN)
def test_a_folder_does_not_import_what_stands_beside_or_above(folder, other):
    assert any(is_in(module, folder) for module in SOURCES)
    assert any(is_in(module, other) for module in SOURCES)
    found = {(m, n) for m, names in IMPORTS.items() if is_in(m, folder) for n in names if is_in(n, other)}
    assert not found


def test_there_is_no_import_circle_even_of_lazy_imports():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(IMPORTS.get(module, set()) - {module}):
                visit(name, (*path, module))
            done.add(module)

    for module, path in SOURCES.items():
        if path.name != "__init__.py":
            visit(module, ())


def test_no_folder_is_too_full():
    folders = {path.parent for path in SOURCES.values()}
    full = {str(f.relative_to(ROOT)): n for f in folders if (n := len(list(f.glob("*.py")))) > MAX_FILES}
    assert not full


def test_every_folder_says_what_lives_there():
    for module, path in SOURCES.items():
        if path.name == "__init__.py":
            assert len(ast.get_docstring(ast.parse(path.read_text())) or "") > 40, module
