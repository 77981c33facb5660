"""Runs as one page of the explorer shows them: by their methods, with the looks of these and with their trainings.

A run of fusion_attention or fusion does not know its study. A comparison that was made of it does: it names each run's
method, and all methods in the order that gives them their colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studykit.report.figures.style import Look, method_looks
from studykit.runs import files
from studykit.runs.manifest import Manifest, read_manifest
from studykit.study.methods import changes


@dataclass(frozen=True)
class ShownRuns:
    """Runs for one page, whose keys are the labels of their series."""

    places: dict[str, str]  # paths by label
    looks: dict[str, Look] | None  # by method; None where no comparison has all runs
    training: dict[str, list[str]]  # fusion runs by label


def shown_runs(places: Sequence[str]) -> ShownRuns:
    """Returns runs, or records (.npz), labelled by their methods; where two have one, with their keys besides."""
    manifests = [read_manifest(Path(place)) for place in places]
    comparison = _comparison_of(places)
    words = [
        _method(Path(place).name, manifest, comparison) if manifest else Path(place).stem
        for place, manifest in zip(places, manifests, strict=True)
    ]
    count = Counter(words)
    labels = [
        word if count[word] < 2 else f"{word} ({Path(place).stem.rpartition('-')[2]})"
        for word, place in zip(words, places, strict=True)
    ]
    training = {}
    for label, place, manifest in zip(labels, places, manifests, strict=True):
        if manifest:
            runs = [place] if manifest.stage == "fusion" else manifest.params["trained_runs"]
            training[label] = [run for run in runs if files.project_path(run).is_dir()]
    alike = max(count.values()) > 1  # runs of one method would look the same
    looks = None if comparison is None or alike else method_looks(comparison.params["evaluations"])
    return ShownRuns(dict(zip(labels, places, strict=True)), looks, training)


def _comparison_of(places: Sequence[str]) -> Manifest | None:
    """Returns the first comparison that was made of all these runs."""
    names = {Path(place).name for place in places}
    for folder in sorted((files.home() / "runs/compare").glob("*/")):
        manifest = read_manifest(folder)
        if manifest and names <= _names(manifest).keys():
            return manifest
    return None


def _names(comparison: Manifest) -> dict[str, str]:
    """Returns the methods of a comparison's runs with fusion weights by the names of their directories."""
    attention, fusions = comparison.params["attention"] or {}, comparison.params["fusions"] or {}
    runs = [(method, run) for method, run in attention.items()]
    runs += [(method, run) for method, of_method in fusions.items() for run in of_method]
    return {Path(run).name: method for method, run in runs}


def _method(name: str, manifest: Manifest, comparison: Manifest | None) -> str:
    """Returns the method of a run, as far as its own parameters tell it where no comparison does."""
    if comparison:
        return _names(comparison)[name]
    params = manifest.params
    if manifest.stage != "fusion":
        return params["method"]
    mask = f"_{params['mask']}" if params["method"] == "advfusion" else ""
    return params["method"] + mask + f"-{params['variant']}" * (params["variant"] != "full") + changes(params)
