"""Which room imports which, read from the source, and how long files are."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.quick

# A room -> those that it may import. Nothing else of ours.
MAY_IMPORT = {
    "process": {"files"},
    "files": set(),
    "trained_networks": set(),
    "devices": set(),
    "input_pipeline": {"files"},
    "configs": {"files"},
    "vision_models": {"devices", "files"},
    "evaluation": {"process", "vision_models", "devices", "files"},
    "training": {"evaluation", "vision_models", "devices", "trained_networks", "files"},
    "visualization": {
        "process",
        "configs",
        "training",
        "evaluation",
        "vision_models",
        "devices",
        "input_pipeline",
        "trained_networks",
        "files",
    },
    "claims": {
        "process",
        "configs",
        "visualization",
        "training",
        "evaluation",
        "vision_models",
        "devices",
        "input_pipeline",
        "files",
    },
    "localizing": {
        "process",
        "configs",
        "evaluation",
        "training",
        "devices",
        "input_pipeline",
    },
    "predicting": {
        "process",
        "configs",
        "training",
        "evaluation",
        "devices",
        "input_pipeline",
        "visualization",
    },
    "modes": {
        "localizing",
        "predicting",
        "process",
        "configs",
        "training",
        "evaluation",
        "devices",
        "input_pipeline",
        "visualization",
        "claims",
    },
    "main": {"process", "modes", "configs", "training", "evaluation", "devices"},
}
EVERYTHING = {"benchmarks", "tests"}
# A package that takes seconds to import, or that a user may lack -> the rooms that may.
ALONE = {
    "tensorflow": {"input_pipeline"},
    "tensorflow_datasets": {"input_pipeline"},
    "ml_collections": {"configs"},
    "torch": set(),
    "orbax": {"training"},
    "matplotlib": {"visualization"},
}


def sources(room):
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def imported(path):
    """Top-level names of all that a file imports, inside functions as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_between_rooms_point_one_way(room):
    files = sources(room)
    assert files
    for path in files:
        strange = imported(path) & (MAY_IMPORT.keys() | EVERYTHING) - MAY_IMPORT[room] - {room}
        assert not strange, path


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_packages_stay_in_their_rooms(room):
    for path in sources(room):
        for package in imported(path) & ALONE.keys():
            assert room in ALONE[package], (path, package)


def test_every_room_is_known():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    files = {path.stem for path in ROOT.glob("*.py")}
    assert rooms | files == MAY_IMPORT.keys() | EVERYTHING


@pytest.mark.parametrize(
    "room, without",
    [
        ("configs", ("jax", "tensorflow", "flax")),
        ("devices", ("tensorflow", "ml_collections", "flax")),
        ("vision_models", ("tensorflow", "ml_collections", "orbax")),
        ("evaluation", ("tensorflow", "ml_collections", "orbax")),
        ("training", ("tensorflow", "ml_collections")),
        ("input_pipeline", ("ml_collections", "flax", "orbax")),
        ("claims", ("jax", "tensorflow", "flax", "matplotlib")),
    ],
)
def test_importing_a_room_does_without(room, without):
    """All of its modules, also through other packages."""
    names = [path.relative_to(ROOT).with_suffix("") for path in sources(room)]
    modules = [".".join(name.parts).removesuffix(".__init__") for name in names]
    script = f"import sys, {', '.join(modules)}; print(*(n for n in {without} if n in sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []


def test_the_quick_tests_touch_every_room():
    """Every package; of the single files main and modes are run by the tests of predicting."""
    marked = {
        path.relative_to(ROOT / "tests").parts[0]
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.quick" in path.read_text()
    }
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert rooms <= marked


@pytest.mark.parametrize("most, tests", [(450, False), (600, True)])
def test_no_file_is_long(most, tests):
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.exists() and name.startswith("tests/") == tests:
            assert len(path.read_text().splitlines()) <= most, name
