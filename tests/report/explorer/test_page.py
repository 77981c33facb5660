"""The explorer's page: what it holds is the record, and nothing that a model wrote can act in it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import zlib

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import studykit
from studykit import cli
from studykit.attention.record import POOLS, mean_weights
from studykit.attention.token_kinds import KINDS
from studykit.errors import UserError
from studykit.report import html
from studykit.report.explorer.payload import STEPS, quantised, recoloured, series_of
from studykit.report.figures import style
from studykit.runs import code_digest
from studykit.training.result import TrainingResult
from tests import made_runs
from tests.made_records import CODE, HOSTILE, MEMBERS, large_record, made_record


def soup_of(page) -> BeautifulSoup:
    return BeautifulSoup(page.html, "html.parser")


def data_of(page) -> tuple[dict, np.ndarray, np.ndarray]:
    """A page's payload, its floats and its bytes, decoded as the script decodes them."""
    data = json.loads(soup_of(page).find("script", id="data").string)
    raw = zlib.decompress(base64.b64decode(data["blob"]), wbits=-15)
    cut = 4 * data["floats"]
    return data, np.frombuffer(raw[:cut], "<f4"), np.frombuffer(raw[cut:], np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 9), st.sampled_from([0.01, 0.5, 50.0]))
def test_quantised_weights_still_add_up(seed, members, concentration):
    weights = np.random.default_rng(seed).dirichlet(np.full(members, concentration), size=(3, 5)).astype(np.float16)
    steps = quantised(weights)
    assert (steps.sum(-1, dtype=int) == STEPS).all()
    assert np.abs(steps / STEPS - weights).max() < 1 / STEPS + 1e-3
    assert not steps[weights == 0].any() or members == 1, "what is excluded stays exactly 0"


def test_quantising_mends_no_fault():
    weights = np.full((1, 1, 4), 0.25)
    assert quantised(1.02 * weights).sum() == round(1.02 * STEPS)
    assert quantised(np.full((1, 1, 4), np.nan)).sum() == 0
    assert quantised(np.zeros((1, 1, 4))).sum() == 0, "norm-weighted shares of a token that gets nothing"


def test_a_page_holds_the_sums_and_the_tokens_of_its_record():
    record = made_record()
    data, floats, of_tokens = data_of(studykit.explore(record))
    (series,), shape = data["series"], (2, len(KINDS), len(record.layers), len(record.members))
    (held,) = series["records"]
    for name, weighted in (("weight", False), ("share", True)):
        sums = floats[held[name] : held[name] + np.prod(shape)].reshape(shape)
        for tokens, pools in POOLS.items():
            for kinds in (KINDS, ["identifier"]):
                chosen = np.ix_(pools, [KINDS.index(kind) for kind in kinds])
                value = sums[chosen].sum((0, 1)) / np.array(held["counts"])[chosen].sum()
                np.testing.assert_allclose(value, mean_weights(record, tokens, weighted, kinds), atol=1e-6)
    for i, sample in enumerate(record.samples):
        assert data["texts"][i]["tokens"] == sample.tokens and data["texts"][i]["id"] == sample.id
        assert [int(mark) for mark in data["texts"][i]["marks"]] == sample.marks.tolist()
        *starts, of_losses = held["samples"][str(i)]
        for start, kept in zip(starts, (sample.weights, sample.shares), strict=True):
            values = of_tokens[start : start + kept.size].reshape(kept.shape) / STEPS
            np.testing.assert_allclose(values, kept, atol=1 / STEPS + 1e-3)
        losses = data["nats"] * (of_tokens[of_losses : of_losses + len(sample.tokens)] / STEPS) ** 2
        np.testing.assert_allclose(losses, sample.losses, rtol=0.02, atol=0.02)
    assert (series["n"], held["checkpoint"], held["base"], held["seed"]) == (3, "lua-made-s0", "made-base", 0)


def test_a_method_looks_as_in_the_figures_of_its_page():
    looks = style.method_looks(["base", "lora", "advfusion_zero"])
    phases = {"phase 1": made_record(phase="phase 1", mask="zero"), "phase 2": made_record()}
    data, *_ = data_of(studykit.explore({"advfusion_zero": phases}, looks=looks))
    first, second = ({name: series[name] for name in ("colour", "marker", "filled")} for series in data["series"])
    assert second == dataclasses.asdict(looks["advfusion_zero"]) and first == second | {"filled": False}


def test_states_of_one_method_have_one_colour_which_is_no_methods_unless_its_look_is_given():
    states = {"phase 1": made_record(phase="phase 1", mask="zero"), "phase 2": made_record()}
    one = data_of(studykit.explore(states))[0]["series"]
    assert {series["colour"] for series in one} == {style.GREY} and len({series["marker"] for series in one}) == 2
    assert [series["filled"] for series in one] == [False, True]
    both = data_of(studykit.explore({"a": states, "b": states}))[0]["series"]
    assert [series["colour"] for series in both] == [style.COLOURS[0]] * 2 + [style.COLOURS[1]] * 2


def test_a_report_gives_explorers_the_colours_of_its_study():
    states = {"phase 1": made_record(phase="phase 1", mask="zero"), "phase 2": made_record()}
    cells = [new_code_cell("", outputs=[new_output("display_data", studykit.explore({name: states})._repr_mimebundle_())])
             for name in ("advfusion_zero", "another")]  # fmt: skip
    methods = ["base", "lora", "advfusion_zero"]
    content = html.render_notebook(nbformat.from_dict(new_notebook(cells=cells)), methods=methods).content
    frames = BeautifulSoup(content, "html.parser").find_all("iframe")
    pages = [BeautifulSoup(frame["srcdoc"], "html.parser").find(id="data").string for frame in frames]
    known, unknown = ([series["colour"] for series in json.loads(page)["series"]] for page in pages)
    assert known == [style.method_looks(methods)["advfusion_zero"].colour] * 2 and unknown == [style.GREY] * 2


def test_a_stored_page_of_an_earlier_version_gets_what_todays_script_reads():
    data, *_ = data_of(studykit.explore([made_record(seed=seed) for seed in (0, 1, 2)]))
    assert data["student"] == pytest.approx([12.7062, 4.3027], abs=1e-4)
    again = recoloured({name: value for name, value in data.items() if name != "student"}, {})
    assert again["student"] == data["student"]


def test_a_page_names_the_files_that_it_was_made_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = made_record()
    record.save(tmp_path / "here/records/s0-phase2.npz")
    for what, source in (("here", "here"), (tmp_path / "here", "here"), ({"a": ["here"]}, {"a": ["here"]})):
        call = data_of(studykit.explore(what, title="T", training={}))[0]["call"]
        assert call == {"what": source, "title": "T", "tokens": "completion", "view": "layers", "training": {}}
    for what in (record, [record], {"a": "here", "b": record}):
        assert "call" not in data_of(studykit.explore(what))[0]


def test_nothing_that_a_model_wrote_can_act():
    evil = HOSTILE[0]
    record = made_record([HOSTILE, CODE], members=[evil, HOSTILE[1]], checkpoint=evil)
    page = studykit.explore({evil: record}, title=evil)
    soup = soup_of(page)
    data, script = soup.find_all("script")
    assert data["type"] == "application/json" and not set("<>&") & set(data.string)
    assert not soup.find_all(["img", "iframe", "link", "object", "base"]) and soup.title.string == evil
    assert json.loads(data.string)["texts"][0]["tokens"] == HOSTILE, "and is shown as it is"
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    digest = base64.b64encode(hashlib.sha256(script.string.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'") and "unsafe" not in policy
    frame = BeautifulSoup(page.frame, "html.parser")
    assert [tag.name for tag in frame.find_all(True)] == ["iframe"] and frame.iframe["srcdoc"] == page.html
    assert 'sandbox="allow-scripts allow-downloads"' in page.frame


def test_the_script_reads_no_text_as_markup_and_asks_for_nothing():
    source = "".join(file.read_text() for file in (code_digest.PACKAGE / "report/explorer/js").glob("*.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch(",
                 "XMLHttpRequest", "import(", "WebSocket", "localStorage", "http:", "https:"):  # fmt: skip
        assert word not in source.replace("http://www.w3.org/2000/svg", ""), word
    assert "</" not in re.sub(r"</(?:svg|text|title)>", "", source)


def test_a_report_shows_the_same_bytes():
    page = studykit.explore(made_record([HOSTILE, CODE]))
    bundle = page._repr_mimebundle_()
    cell = new_code_cell("", outputs=[new_output("display_data", bundle)])
    notebook = nbformat.from_dict(new_notebook(cells=[new_markdown_cell("# T"), cell]))
    shown = BeautifulSoup(html.render_notebook(notebook).content, "html.parser")
    frame = shown.iframe
    assert not shown.select(".untrusted") and "Trust Notebook" not in shown.get_text()
    assert frame["srcdoc"] == page.html and "height" in frame["style"]
    assert sorted(frame["sandbox"]) == ["allow-downloads", "allow-scripts"]
    assert "n = 2 samples" in frame["title"] and "n = 2 samples" in bundle["text/plain"]


def test_a_notebook_that_is_not_trusted_has_a_picture_instead():
    output = BeautifulSoup(studykit.explore(made_record([HOSTILE]))._repr_mimebundle_()["text/html"], "html.parser")
    instead = output.select_one("div.untrusted")
    assert instead.img["src"].startswith("data:image/") and "The target" in instead.img["alt"]
    assert "Trust Notebook" in instead.get_text()
    assert ".untrusted {display: none}" in output.style.get_text(), "hidden where styles are allowed, as frames are"


def test_what_can_be_explored(tmp_path):
    one, other = made_record(seed=0), made_record(seed=1)
    first = made_record(phase="phase 1", mask="exclude")
    go = made_record(members=["python", "go"], target="go")

    def labels(what):
        return {series.label: len(series.records) for series in series_of(what)}

    assert labels(one) == {"phase 2": 1} and labels([one, other]) == {"phase 2": 2}
    assert labels([first, one]) == {"phase 1, lua masked (exclude)": 1, "phase 2": 1}
    assert labels({"a": {"phase 2": [one, other]}, "b": one}) == {"a · phase 2": 2, "b": 1}
    assert labels([one, go]) == {"phase 2 · lua-made-s0": 1, "phase 2 · go-made-s0": 1}, "no seeds of one run"
    average = dataclasses.replace(made_record(seed=1), method="average")
    assert len(labels([one, average])) == len(labels([one, dataclasses.replace(other, base="another")])) == 2
    assert list(labels(dataclasses.replace(average, phase="adapterfusion"))) == ["average"], "named by its method"
    assert labels([one, one]) == {"phase 2 · record 1": 1, "phase 2 · record 2": 1}
    run = tmp_path / "run"
    init, restored = made_record(phase="init"), made_record(phase="phase 1")
    stored = {"s0-fusion": one, "s0-init": init, "s0-phase1-masked": first, "s0-phase1": restored, "s1-fusion": other}
    for name, record in stored.items():
        record.save(run / f"records/{name}.npz")
    found = {"initialisation": 1, "phase 2": 2, "phase 1, restored": 1, "phase 1, masked (exclude)": 1}
    assert labels(str(run)) == labels(run) == found and labels(run / "records/s0-fusion.npz") == {"phase 2": 1}
    assert labels({"x": run}) == {f"x · {name}": n for name, n in found.items()}
    first.save(tmp_path / "fusion/attention/phase1-masked.npz")
    assert labels({"x": tmp_path / "fusion"}) == {"x": 1} and labels(tmp_path / "fusion") == {
        "phase 1, masked (exclude)": 1
    }


@pytest.mark.parametrize("what, sentence", [
    (3, "cannot explore int"), ([], "no fusion record"), ({}, "no fusion record"), ("absent", "absent holds no fusion"),
    ("absent.npz", "no fusion record at absent.npz"),
])  # fmt: skip
def test_what_cannot_be_explored_is_said_in_a_sentence(what, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        studykit.explore(what)


def test_unknown_choices_are_refused():
    with pytest.raises(UserError, match="accepted are prompt, completion, both"):
        studykit.explore(made_record(), tokens="all")
    with pytest.raises(UserError, match="accepted are layers, compare, all, depth, kinds, tokens, training"):
        studykit.explore(made_record(), view="heatmap")


def test_what_is_beyond_the_budget_is_left_out_alike_in_all_series_and_never_a_first_sample():
    texts = [[f" word{i + j}" for j in range(60)] for i in range(4)]
    pair = {phase: [made_record(texts, phase=phase, seed=seed) for seed in (0, 1)] for phase in ("phase 1", "phase 2")}
    pair["go"] = made_record(texts[2:], members=["python", "go"], seed=0)
    last = 0
    for budget in range(0, 30_000, 1_500):
        data = data_of(studykit.explore(pair, budget=budget))[0]
        one, two, go = ([record["samples"] for record in series["records"]] for series in data["series"])
        assert [held.keys() for held in one] == [held.keys() for held in two], "differences are of the same"
        assert None not in one[0]["0"] and None not in next(iter(go[0].values())), "the first of each, with both parts"
        offsets = [place for of_seed in (*one, *two, *go) for held in of_seed.values() for place in held]
        kept = sum(place is not None for place in offsets)
        assert all(weights is not None for of_seed in one for weights, *_ in of_seed.values())
        assert kept >= last, "what fitted stays"
        last = kept
        assert not one[1] or all(None not in held for held in one[0].values()), "the first seed before the others"
        assert len(data["blob"]) * 3 / 4 < budget + 30_000
    assert last == 3 * (4 + 4 + 4 + 4 + 2), "in the end all are there: weights, shares and losses"


def test_a_record_without_kept_samples_has_a_page():
    data, _, of_tokens = data_of(studykit.explore(made_record(keep=0)))
    assert data["texts"] == [] and len(of_tokens) == 0


def test_a_report_of_fifty_samples_stays_small():
    record = large_record(layers=24, tokens=400, members=6, samples=50)
    page = studykit.explore(record)
    assert len(page.frame.encode()) < 5e6
    assert len(data_of(page)[0]["series"][0]["records"][0]["samples"]) == 50, "all can be read token by token"


def test_the_package_offers_it_without_importing_it():
    code = ("import sys, studykit; assert not {'matplotlib', 'torch', 'numpy'} & sys.modules.keys();"
            "assert callable(studykit.explore)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'explorer2'"):
        studykit.explorer2  # noqa: B018
    names = {file.name for file in code_digest.closure("import studykit")}
    assert "page.py" not in names, "editing the explorer makes no run out of date"


def test_a_page_can_be_saved(tmp_path):
    page = studykit.explore(made_record(), title="A & B")
    assert page.save(tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    assert "<title>A &amp; B</title>" in page.html and MEMBERS[2] in page.html


def test_the_command_writes_one_file_of_one_or_several_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    made_record(seed=0).save("first-0/records/s0-phase2.npz")
    made_record(seed=1).save("second-1/records/s1-phase2.npz")
    assert cli.main(["explore", "first-0"]) == 0 and capsys.readouterr().out == "explorer.html\n"
    assert "first-0" in (tmp_path / "explorer.html").read_text()
    assert cli.main(["explore", "first-0", "second-1", "--out", "both.html"]) == 0
    soup = BeautifulSoup((tmp_path / "both.html").read_text(), "html.parser")
    series = json.loads(soup.find("script", id="data").string)["series"]
    assert [one["label"] for one in series] == ["first-0", "second-1"]
    shown = html_data(tmp_path / "both.html")["call"]["what"]
    assert shown == {"first-0": "first-0", "second-1": "second-1"}
    assert cli.main(["explore", "absent"]) == 2 and "absent holds no fusion records" in capsys.readouterr().err


def html_data(file):
    return json.loads(BeautifulSoup(file.read_text(), "html.parser").find("script", id="data").string)


def test_the_command_names_runs_by_their_methods_with_the_looks_of_their_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    made = {"advfusion_zero": "advfusion_zero-0123456789", "adapterfusion": "adapterfusion-1123456789"}
    places = {method: f"runs/fusion_attention/{name}" for method, name in made.items()}
    fusion = {"method": "advfusion", "mask": "zero", "variant": "full", "masked_member": "", "left_out": [],
              "placebo": "none", "members": {}, "target": "lua", "seed": 0}  # fmt: skip
    fusions = {name: f"runs/fusion/lua-advfusion_zero-s0-{name * 10}" for name in "ab"}
    for place in fusions.values():
        made_record(phase="phase 1", mask="zero").save(tmp_path / place / "attention/phase1-masked.npz")
        made_record().save(tmp_path / place / "attention/phase2.npz")
        for phase in ("phase1", "phase2"):
            TrainingResult([], 20, 20, 1.0, 1.0, 1, 1.0).write(tmp_path / place / phase / "training.json")
        made_runs.finish(tmp_path / place, "fusion", fusion)
    for method, place in places.items():
        made_record().save(tmp_path / place / "records/s0-phase2.npz")
        made_runs.finish(tmp_path / place, "fusion_attention", {"method": method, "trained_runs": []})

    def series(*runs):
        assert cli.main(["explore", *runs, "--out", "page.html"]) == 0
        return html_data(tmp_path / "page.html")["series"]

    assert [one["label"] for one in series(*places.values())] == ["advfusion_zero", "adapterfusion"]
    assert {one["label"].partition(" · ")[0] for one in series(fusions["a"])} == {"advfusion_zero"}
    evaluations = dict.fromkeys(["base", "lora", "adapterfusion", "advfusion_zero"], "runs/evaluate/x")
    compared = {"evaluations": evaluations, "attention": places, "fusions": {"advfusion_zero": [fusions["a"]]}}
    (tmp_path / "runs/compare/lua-2123456789").mkdir(parents=True)
    made_runs.finish(tmp_path / "runs/compare/lua-2123456789", "compare", compared)
    looks = style.method_looks(evaluations)
    for runs in (places.values(), list(places.values())[1:], [fusions["a"]]):
        for one in series(*runs):
            look = looks[one["label"].partition(" · ")[0]]
            assert (one["colour"], one["marker"]) == (look.colour, look.marker)
    clashing = series(*fusions.values())
    labels = list(dict.fromkeys(one["label"].partition(" · ")[0] for one in clashing))
    assert labels == [f"advfusion_zero ({name * 10})" for name in "ab"]
    assert len({one["colour"] for one in clashing}) == 2, "two runs of one method can be told apart"
