"""pyproject.toml (ranges), requirements.txt (pins) and environment.yml (conda) say the same."""

import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RANGES = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
RANGES += [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"]["dev"]]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
PINS = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LINES}


def test_every_pin_is_exact_and_stands_once():
    assert len(PINS) == len(LINES)
    for pin in PINS.values():
        assert [spec.operator for spec in pin.specifier] == ["=="], str(pin)


def test_every_range_has_a_pin_within_it():
    for wanted in RANGES:
        pin = PINS[canonicalize_name(wanted.name)]
        version = next(iter(pin.specifier)).version
        assert wanted.specifier.contains(version), f"{pin} is outside {wanted}"


def test_every_pin_is_needed_by_something_that_is_asked_for():
    """Walks the installed packages' requirements from pyproject's; a pin that nothing reaches is a leftover."""
    todo, reached = [(canonicalize_name(wanted.name), frozenset(wanted.extras)) for wanted in RANGES], set()
    todo.append(("setuptools", frozenset()))  # builds the editable install
    while todo:
        name, extras = todo.pop()
        if (name, extras) in reached:
            continue
        reached.add((name, extras))
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                if canonicalize_name(need.name) in PINS:
                    todo.append((canonicalize_name(need.name), frozenset(need.extras)))
    assert set(PINS) - {name for name, _ in reached} == set()


def test_environment_points_at_the_pins():
    text = (ROOT / "environment.yml").read_text()
    dependencies = yaml.safe_load(text)["dependencies"]
    assert dependencies[0] == "python=3.11" and PYPROJECT["project"]["requires-python"] == ">=3.11"
    assert dependencies[-1]["pip"] == ["-r requirements.txt", "--no-deps -e ."]
    items = [line for line in text.splitlines() if line.lstrip().startswith("- ") and "pip:" not in line]
    assert all("  # " in line for line in items), "one comment per line"


def test_torch_is_pinned_to_the_measured_version():
    assert str(PINS["torch"].specifier) == "==2.13.0"


def test_every_file_of_the_package_is_packaged():
    """Patterns under "*" hold in every package of the project."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
    others = [f for f in (ROOT / "studykit").rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert len(others) > 5
    for file in others:
        package = next(parent for parent in file.parents if (parent / "__init__.py").exists())
        assert any(file in package.glob(pattern) for pattern in patterns), file
