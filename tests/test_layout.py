"""The layout of the code: imports run one way, and a module stays one that can be read."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "simulators", "stream")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_LINES = 600
WANTED_LINES = 300

# What each package may import of ours, by the prefix of the module.
MAY = {
    "model": ("model",),
    "stream": ("stream", "model"),
    "simulators": ("simulators", "stream.wire", "model.datasets"),
}
# A producer is a process of the ward: it logs, is ready and stops as every role does.
# A soak asks the supervisor's control socket by the client that comes with it.
ALSO = {
    "simulators.producer": ("stream.log", "stream.process"),
    "simulators.soak.stage": ("stream.roles.supervisor",),
}
# Pure functions from samples to numbers: nothing that has a clock, a socket or a thread.
NOT_IN_MODEL = {
    "asyncio",
    "multiprocessing",
    "select",
    "selectors",
    "socket",
    "structlog",
    "subprocess",
    "threading",
    "zmq",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, late ones too; `from a import b` gives a.b where that is a module of ours."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = any((ROOT / whole.replace(".", "/")).with_suffix(end).exists() for end in ("", ".py"))
                yield node.lineno, whole if is_module else str(node.module)


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    wrong = []
    for path in MODULES:
        name = name_of(path)
        if within(name, (package,)):
            may = MAY[package] + ALSO.get(name, ())
            wrong += [
                f"{name}:{line} imports {module}"
                for line, module in imports(path)
                if module.partition(".")[0] in PACKAGES and not within(module, may)
            ]
    assert not wrong


def test_the_model_has_no_socket_clock_or_thread() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in MODULES
        if path.is_relative_to(ROOT / "model")
        for line, module in imports(path)
        if module.partition(".")[0] in NOT_IN_MODEL
    ]
    assert not wrong


def test_no_import_is_circular() -> None:
    known = {name_of(path) for path in MODULES}
    graph = {name_of(path): {module for _, module in imports(path) if module in known} for path in MODULES}
    done: set[str] = set()
    way: list[str] = []

    def follow(name: str) -> None:
        assert name not in way, " imports ".join([*way[way.index(name) :], name])
        if name in done:
            return
        way.append(name)
        for other in sorted(graph[name] - {name}):
            follow(other)
        way.pop()
        done.add(name)

    for name in sorted(graph):
        follow(name)


def test_the_door_imports_late() -> None:
    """`--help` must not wait for torch."""
    tree = ast.parse((ROOT / "run_pipeline.py").read_text())
    early = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    early |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name for name in early if name.partition(".")[0] not in sys.stdlib_module_names} == {"click"}


def test_no_module_is_too_long_to_be_read() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = sorted(((n, name) for name, n in sizes.items() if n > WANTED_LINES), reverse=True)
    print(f"{len(sizes)} modules, {sum(sizes.values())} lines; over {WANTED_LINES}:", *long, sep="\n")
    assert [name for n, name in long if n > MOST_LINES] == []
