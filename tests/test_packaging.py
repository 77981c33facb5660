"""pyproject.toml (ranges), requirements.txt (pins) and environment.yml (conda) say the same."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
ASKED = [PYPROJECT["project"]["dependencies"], *(EXTRAS[name] for name in EXTRAS if name != "all")]
RANGES = [Requirement(line) for lines in ASKED for line in lines]
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


def distributions(*lines: str) -> set[str]:
    """Returns the names of the packages that pip installs for these requirements, as far as they are installed here."""
    todo, reached = [Requirement(line) for line in lines], set()
    while todo:
        need = todo.pop()
        name = canonicalize_name(need.name)
        if (name, extras := frozenset(need.extras)) in reached:
            continue
        reached.add((name, extras))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        below = [Requirement(line) for line in lines]
        todo += [r for r in below if not r.marker or any(r.marker.evaluate({"extra": x}) for x in {"", *extras})]
    return {name for name, _ in reached}


def run_with(extra: str | None, code: str) -> str:
    """Runs code in a process that finds no package but those of studykit[extra]; returns what it prints."""
    installed = distributions(*PYPROJECT["project"]["dependencies"], *(EXTRAS[extra] if extra else []))
    absent = sorted(name for name, owners in metadata.packages_distributions().items()
                    if not installed & {canonicalize_name(owner) for owner in owners}
                    and name not in ("studykit", "pip", "_virtualenv"))  # fmt: skip
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"  # their import raises ModuleNotFoundError
    ended = subprocess.run([sys.executable, "-c", blocked + code], cwd=ROOT, text=True, capture_output=True)
    return ended.stdout + ended.stderr


def test_the_tuner_needs_neither_snakemake_nor_jupyter_nor_grammars():
    code = """
from peft import get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM
from studykit.tuners import BottleneckConfig, FusionConfig, fusion_members, record_fusion
import studykit.tuners.adapterhub
base = Qwen2ForCausalLM(Qwen2Config(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                    num_key_value_heads=2, intermediate_size=8))
model = get_peft_model(base, BottleneckConfig(reduction_factor=2, task_type="CAUSAL_LM"), adapter_name="python")
model.add_adapter("ruby", BottleneckConfig(reduction_factor=2, task_type="CAUSAL_LM"))
model.add_adapter("fusion", FusionConfig(members=["python", "ruby"], task_type="CAUSAL_LM"))
model.set_adapter("fusion")
fusion_members(model, masked=["ruby"])
model.fold_fusion()
print("folded")
"""
    assert run_with(None, code).strip() == "folded"


def test_metrics_need_no_notebooks():
    code = """
from studykit.evaluation.metrics.score import score_texts
print(score_texts(["return a+b"], ["return a + b"], "python")["parse_ok"].value)
"""
    assert run_with("metrics", code).strip() == "100.0"


def test_the_command_says_what_is_missing():
    message = run_with(None, "import studykit\nstudykit.main()")
    assert message.count("\n") == 1 and "pip install 'studykit[all]'" in message, message


def test_the_command_is_the_one_that_says_so():
    assert PYPROJECT["project"]["scripts"] == {"studykit": "studykit:main"}
    assert EXTRAS["all"] == ["studykit[metrics,notebooks]"] and {"metrics", "notebooks"} < EXTRAS.keys()


def test_citation_names_this_version_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["title"].startswith("studykit")
    for key in ("version", "license"):
        assert citation[key] == PYPROJECT["project"][key]
    papers = " ".join(reference["url"] for reference in citation["references"])
    assert all(number in papers for number in ("2307.07854", "2511.02869", "2005.00247"))
    assert f"## {citation['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
