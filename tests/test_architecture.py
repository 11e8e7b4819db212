"""The two wings, the one door and the one direction: docs and reviews may forget them, this file does not."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sal_fast"
OPS = PACKAGE / "ops"
EXPERIMENT = {
    "annotate", "bench", "cli", "data", "distributed", "errors", "experiment", "metrics", "models",
    "people", "plugins", "probes", "query", "report", "seeds", "sweep", "testing", "train", "trained",
}  # fmt: skip
HEAVY = {"PIL", "jinja2", "matplotlib", "nvidia", "polars", "ray", "rich", "scipy", "torchvision", "tyro"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; `from a import b` gives a and a.b."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    """The dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", python_files(OPS), ids=names)
def test_ops_know_nothing_of_the_experiment(path: Path) -> None:
    allowed = {"sal_fast", "sal_fast._native", "sal_fast._util", "sal_fast.ops"}
    for module in imports(path):
        if module.split(".")[0] == "sal_fast":
            assert ".".join(module.split(".")[:2]) in allowed, module
            assert module.split(".")[1:2] != ["_C"], module


@pytest.mark.parametrize("path", sorted(OPS.rglob("reference.py")), ids=names)
def test_a_reference_imports_torch_only(path: Path) -> None:
    for module in imports(path):
        root = module.split(".")[0]
        if root == "sal_fast":
            assert re.match(r"sal_fast\.ops\.\w+\.reference\b", module), module
        else:
            assert root == "torch" or root in sys.stdlib_module_names, module


LOADER = {PACKAGE / "__init__.py", PACKAGE / "_native.py"}


@pytest.mark.parametrize(
    "path",
    [path for path in python_files(PACKAGE) if OPS not in path.parents and path not in LOADER],
    ids=names,
)
def test_the_one_door(path: Path) -> None:
    """The experiment sees the public names of sal_fast.ops: no op's inside, no pointer."""
    for module in imports(path):
        parts = module.split(".")
        assert parts[:2] not in (["sal_fast", "_native"], ["sal_fast", "_C"]), module
        if parts[:2] == ["sal_fast", "ops"] and len(parts) > 2:
            assert len(parts) == 3, module
            assert not parts[2].startswith("_"), module


def test_experiment_modules_are_listed() -> None:
    """A new module is put on one side or the other."""
    modules = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules - EXPERIMENT <= {"__init__", "__main__", "_native", "_util", "ops"}


def test_no_circles() -> None:
    """No module of the package imports itself through others, at any depth, for types or in a function."""
    files = {module_of(path): path for path in python_files(PACKAGE)}
    arrows = {
        module: {other for other in imports(path) if other in files and other != module}
        for module, path in files.items()
    }
    for (
        module,
        others,
    ) in arrows.items():  # `from package import part` needs the part, not what the package is
        others -= {other for other in others if any(o.startswith(other + ".") for o in others)}
        others -= {module.rpartition(".")[0]}
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


SCREEN = {PACKAGE / "experiment" / "watch.py"}  # the table of rounds


@pytest.mark.parametrize(
    "path",
    [path for path in python_files(PACKAGE) if PACKAGE / "cli" not in path.parents and path not in SCREEN],
    ids=names,
)
def test_nothing_prints_outside_the_command_line(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.stdout.write", "sys.stderr.write"), f"line {node.lineno}"


def test_no_torch_in_csrc() -> None:
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert sources
    for path in sources:
        found = re.findall(r'#include\s*[<"](?:torch|ATen|c10|Python\.h)[^>"]*', path.read_text())
        assert not found, f"{names(path)}: {found}"


def test_csrc_layers() -> None:
    """bindings -> launch.h -> cpu, cuda -> include."""
    below = {"include": {"include"}, "cpu": {"include", "cpu"}, "cuda": {"include", "cuda"}}
    owner = {path.name: path.relative_to(ROOT / "csrc").parts[0] for path in (ROOT / "csrc").rglob("*.h*")}
    owner |= {path.name: "cuda" for path in (ROOT / "csrc").rglob("*.cuh")}
    for layer, allowed in below.items():
        for path in (ROOT / "csrc" / layer).rglob("*"):
            if path.is_file():
                for header in re.findall(r'#include\s*"([^"]+)"', path.read_text()):
                    assert owner[Path(header).name] in allowed, f"{names(path)} includes {header}"


@pytest.mark.parametrize("module", ["sal_fast", "sal_fast.ops", "sal_fast.probes"])
def test_imports_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert not loaded & HEAVY
    if module == "sal_fast":
        assert not loaded & {"torch", "numpy"}
