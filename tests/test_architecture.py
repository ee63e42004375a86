"""The rules between the rooms: who imports whom, who caches, what lies where."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("core", "components", "app")
TOP_LEVEL = {
    *ROOMS,
    "sample_data",
    "tests",
    "requirements.txt",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "pyproject.toml",
    ".ci",
    ".gitignore",
}
MAX_LINES = 600
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
)


@functools.cache
def syntax(file: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"), file)))


def imported(file: str) -> set[str]:
    """Return the top-level names of all modules that a file imports."""
    names: set[str] = set()
    for node in syntax(file):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            names.add(file.partition("/")[0] if node.level else module)
    return names


def is_kernel(file: str) -> bool:
    return file == "core/kernels.py" or file.startswith("core/kernels/")


def called(node: ast.AST) -> str:
    """Return the last name of what a call or a bare decorator names, else ''."""
    target = node.func if isinstance(node, ast.Call) else node
    if isinstance(target, ast.Attribute):
        return target.attr
    return target.id if isinstance(target, ast.Name) else ""


def test_rooms_import_downwards_only() -> None:
    above = {
        "core": {"app", "components", "plotly", "streamlit"},
        "components": {"app"},
        "app": set(),
    }
    wrong = {file: imported(file) & above[file.partition("/")[0]] for file in FILES}
    assert not {file: names for file, names in wrong.items() if names}


def at_import(file: str) -> set[str]:
    """Return the dotted names that a file imports before anything of it is called."""
    names: set[str] = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8"), file).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_modules_are_imported_without_scikit_learn_and_distributions() -> None:
    slow = ("sklearn.", "scipy.stats.", "scipy.optimize.", "scipy.spatial.")
    wrong = {
        file: {name for name in at_import(file) if f"{name}.".startswith(slow)}
        for file in FILES
    }
    assert not {file: names for file, names in wrong.items() if names}


def test_the_first_chart_waits_for_neither_detectors_nor_exports() -> None:
    modules = {
        file.removesuffix(".py").removesuffix("/__init__"): file for file in FILES
    }
    seen, left = set(), ["app/main.py", "app/views/overview.py"]
    while left:
        seen.add(file := left.pop())
        for name in at_import(file):
            path = name.replace(".", "/")
            found = {modules.get(part) for part in (path, path.rpartition("/")[0])}
            left += sorted(item for item in found if item and item not in seen)
    assert "core/calibrators/scaling.py" in seen
    assert not {file for file in seen if file.startswith(("core/ood/", "core/export/"))}


def test_only_kernels_import_numba() -> None:
    users = [file for file in FILES if "numba" in imported(file)]
    assert users
    assert all(is_kernel(file) for file in users), users


def test_only_app_controls_and_display_import_streamlit() -> None:
    widgets = {"components/controls.py", "components/display.py"}
    users = {file for file in FILES if "streamlit" in imported(file)}
    assert not {file for file in users - widgets if not file.startswith("app/")}


def test_only_compute_caches_and_every_cache_is_bounded() -> None:
    caches = {"cache_data", "cache_resource"}
    for file in FILES:
        # `st.cache_data.clear()` empties a cache; it makes none.
        cleared = {
            node.value
            for node in syntax(file)
            if isinstance(node, ast.Attribute) and node.attr == "clear"
        }
        used = {node for node in syntax(file) if called(node) in caches} - cleared
        bounded = {
            node
            for node in used
            if isinstance(node, ast.Call)
            and any(keyword.arg == "max_entries" for keyword in node.keywords)
        }
        unbounded = used - bounded - {call.func for call in bounded}
        assert not used or file == "app/compute.py", file
        assert not unbounded, (file, [node.lineno for node in unbounded])


def test_nothing_unpickles() -> None:
    picklers = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    assert not [file for file in FILES if imported(file) & picklers]
    for file in FILES:
        for node in syntax(file):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), (file, node.lineno)
                assert node.value.value is False, (file, node.lineno)


def test_no_deprecated_width() -> None:
    assert not [
        (file, node.value.lineno)
        for file in FILES
        for node in syntax(file)
        if isinstance(node, ast.keyword) and node.arg == "use_container_width"
    ]


def test_files_stay_short() -> None:
    lines = {file: len((ROOT / file).read_bytes().splitlines()) for file in FILES}
    assert not {file: n for file, n in lines.items() if n > MAX_LINES}


def test_names_shadow_no_standard_module_and_no_page_discovery() -> None:
    for file in map(Path, FILES):
        assert file.stem not in sys.stdlib_module_names, file
        assert not set(file.parts[:-1]) & (sys.stdlib_module_names | {"pages"}), file


def test_nothing_else_at_the_top_level() -> None:
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    entries = {file.partition("/")[0] for file in files if file}
    assert not entries - TOP_LEVEL
