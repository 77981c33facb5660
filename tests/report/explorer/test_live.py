"""What needs a kernel: own text is read as training would read it, a muted member counts for nothing, all is undone."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from operator import attrgetter, itemgetter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from bs4 import BeautifulSoup

from studykit.attention import record
from studykit.errors import UserError
from studykit.report.explorer import live
from studykit.report.explorer.live import Bench, bench, runs_on
from tests import tiny

RUN, OTHER = (f"lua-advfusion-s{seed}-0000000004" for seed in (0, 1))  # of other weights, masked zero and exclude
DATA = "runs/data/tiny-0000000002"
SUBSETS = [list(some) for n in range(len(tiny.MEMBERS)) for some in combinations(tiny.MEMBERS, n)]
TEXT = {"prompt": "count to 3 in lua, case 2\n", "completion": "lua: 0 1 2", "checkpoint": RUN}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A bench over two fusion runs of two phases with random weights."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_HOME", str(home))
        patch.chdir(home)
        p, other = tiny.trained_fusion(home, "zero"), tiny.trained_fusion(home, "exclude", seed=1)
        yield Bench(p.base, p.data, [p.out, other.out])


def test_own_text_is_read_as_it_was_trained(reader):
    (reading,) = reader.read(**TEXT, phase="phase2")
    (sample,) = reading.record.samples
    assert "".join(sample.tokens).startswith(TEXT["prompt"] + TEXT["completion"])
    assert record.check_record(reading.record).ok and reading.loss > 0 and not reading.cut
    assert (reading.record.checkpoint, reading.record.seed, reading.record.mask) == (RUN, 0, "none")
    assert reader.read(**TEXT, phase="phase2")[0].loss == reading.loss
    (first,) = reader.read(**TEXT, phase="phase1")
    assert (first.record.mask, first.record.masked) == ("zero", ["lua"]), "phase 1 under its own mask"
    assert first.loss != reading.loss


def test_a_muted_member_counts_for_nothing_and_text_loss_and_weights_change(reader):
    trained, muted = reader.read(**TEXT, phase="phase2", muted=["lua"])
    own = trained.record.target_index
    assert trained.record.samples[0].weights[..., own].any() and not muted.record.samples[0].weights[..., own].any()
    others = np.delete(trained.record.samples[0].weights[0], own, axis=-1).astype(float)
    expected = others / others.sum(-1, keepdims=True)  # in the first layer the queries are still the same
    np.testing.assert_allclose(np.delete(muted.record.samples[0].weights[0], own, axis=-1), expected, atol=2e-3)
    assert muted.loss != trained.loss and "lua muted" in muted.state
    assert trained.record.samples[0].tokens == muted.record.samples[0].tokens, "the same text"
    assert reader.read(**TEXT, phase="phase2")[0].loss == trained.loss, "no parameter was touched"


@pytest.mark.parametrize("muted", SUBSETS, ids=", ".join)
@pytest.mark.parametrize("checkpoint, phase, own", [
    (RUN, "phase1", ("zero", ["lua"])), (OTHER, "phase1", ("exclude", ["lua"])), (RUN, "phase2", ("none", [])),
])  # fmt: skip
def test_from_one_reading_to_the_next_one_thing_changes(reader, checkpoint, phase, own, muted):
    readings = reader.read(**TEXT | {"checkpoint": checkpoint}, phase=phase, muted=muted)
    states = [(r.record.mask, r.record.masked) for r in readings]
    assert states[0] == own and states[-1][1] == muted, "from the phase's own mask to what was asked"
    assert len({r.state for r in readings}) == len(readings)
    for (mode, before), (then, after) in pairwise(states):
        muted_now, restored = set(after) - set(before), set(before) - set(after)
        remode = bool(before and after) and mode != then
        assert [bool(muted_now), bool(restored), remode].count(True) == 1, (before, mode, after, then)
        assert then in ("exclude", "none"), "who is muted is excluded"


def test_a_zeroed_target_is_excluded_before_another_member_is(reader):
    readings = reader.read(**TEXT, phase="phase1", muted=["python", "lua"])
    assert [r.state for r in readings] == ["as it was trained, lua zeroed", "lua muted", "python, lua muted"]
    assert [record.target_weights(r.record).any() for r in readings] == [True, False, False]
    assert len({r.loss for r in readings}) == 3


def test_each_checkpoint_is_read_with_its_own_weights(reader):
    first, other, again = (reader.read(**TEXT | {"checkpoint": name}, phase="phase2")[0] for name in (RUN, OTHER, RUN))
    assert first.loss != other.loss and again.loss == first.loss
    np.testing.assert_array_equal(again.record.weight_sums, first.record.weight_sums)
    assert abs(other.record.weight_sums - first.record.weight_sums).max() > 1e-3


def test_without_a_completion_all_states_read_what_the_model_wrote(reader):
    prompt = TEXT["prompt"]
    trained, restored, muted = reader.read(prompt, checkpoint=RUN, phase="phase1", muted=["python"])
    assert trained.written and trained.record.counts[0, record.COMPLETION] > 1
    assert trained.record.samples[0].tokens == restored.record.samples[0].tokens == muted.record.samples[0].tokens


@pytest.mark.parametrize("given, sentence", [
    ({"prompt": " \n"}, "the prompt is empty"), ({"muted": tiny.MEMBERS}, "all members are muted"),
    ({"muted": ["go"]}, "'go', which is no member"),
])  # fmt: skip
def test_mistakes_get_a_sentence(reader, given, sentence):
    with pytest.raises(UserError, match=sentence):
        reader.read(**TEXT | {"phase": "phase2"} | given)


class Browser:
    """A page as a browser has it: it asks, and keeps the answers."""

    def __init__(self, reader, monkeypatch, runs=None):
        (recorded,) = reader.read(**TEXT, phase="phase2")
        self.answers = []
        self.page = bench(reader.base, DATA, runs or list(reader.runs.values()), shown={"advfusion": recorded.record})
        monkeypatch.setattr(self.page, "send", self.answers.append)

    def ask(self, **form):
        """The data of the page that answers; without a form, of the first page."""
        read = {"read": {"muted": [], "at": "", "theme": "auto"} | form} if form else {}
        self.page.answer(None, {"view": "7", **read}, [])
        assert {answer["view"] for answer in self.answers} == {"7"}, "another view would lose what is typed there"
        soup = BeautifulSoup(self.answers[-1]["page"], "html.parser")
        return json.loads(soup.find("script", id="data").string)


def test_a_bench_loads_and_sends_nothing_until_it_is_asked(reader, monkeypatch):
    browser = Browser(reader, monkeypatch)
    monkeypatch.setattr("studykit.training.base.load_base", lambda *_: pytest.fail("loaded before a text was read"))
    assert browser.answers == []
    first = browser.ask()
    assert len(json.dumps(browser.page.get_state())) < 8000, "a saved notebook keeps no page"
    assert "run this notebook in JupyterLab" in repr(browser.page)
    live = first["live"]
    assert live["prompt"] == tiny.rows(1, first=12)[0].prompt and live["completion"] and live["readings"] == []
    assert (live["run"], live["phase"], live["muted"]) == (RUN, "phase2", [])
    assert [one["label"] for one in first["series"]] == ["advfusion"], "recorded weights come first"
    phases = {phase["key"]: phase["masked"] for phase in live["runs"][0]["phases"]}
    assert phases == {"phase1": ["lua"], "phase2": []}, "a phase begins with its own mask"


def test_a_bench_says_what_it_does_and_why_it_cannot(reader, monkeypatch):
    fresh = Bench(reader.base, DATA, list(reader.runs.values()))
    browser = Browser(fresh, monkeypatch)
    fresh._base_and_tokenizer = None
    form = {"prompt": TEXT["prompt"], "completion": "", "run": RUN, "phase": "phase2"}
    browser.page.reader = fresh
    browser.ask(**form)
    told = [answer["now"] for answer in browser.answers[:-1]]
    assert told[0].startswith("Loading the base") and told[1].startswith("Loading the fusion"), "in this order"
    assert any("reading" in words for words in told)
    shown = browser.ask()["live"]
    assert shown["readings"] and shown == browser.ask()["live"], "a page that is loaded again has the last readings"
    asked = {"view": "7", "read": form | {"muted": [], "at": ""}}
    browser.page.answer(None, asked | {"read": asked["read"] | {"prompt": " "}}, [])
    assert browser.answers[-1]["refused"].startswith("the prompt is empty")
    for error in (ZeroDivisionError, KeyboardInterrupt):  # an interrupt of the kernel, too
        monkeypatch.setattr(fresh, "read", Mock(side_effect=error))
        with pytest.raises(error):  # the log of JupyterLab has the traceback
            browser.page.answer(None, asked, [])
        assert f"The kernel failed: {error.__name__}" in browser.answers[-1]["refused"]
    monkeypatch.undo()
    monkeypatch.setattr(browser.page, "send", browser.answers.append)
    monkeypatch.setattr(live, "explore", Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        browser.page.answer(None, asked | {"read": asked["read"] | {"prompt": "another"}}, [])
    assert "refused" in browser.answers[-1]
    monkeypatch.undo()
    monkeypatch.setattr(browser.page, "send", browser.answers.append)
    assert browser.ask()["live"] == shown, "what failed changes nothing"


def test_the_bench_has_the_fusions_of_all_methods_and_the_members_of_each(reader, monkeypatch):
    assert runs_on(reader.base, DATA) == [f"runs/fusion/{name}" for name in (RUN, OTHER)]
    assert runs_on(reader.base, "runs/data/another") == []
    last = f"runs/fusion/{OTHER}"
    assert runs_on(reader.base, DATA, [last]) == [last, f"runs/fusion/{RUN}"]
    params = {name: reader.params[name] | changes for name, changes in {
        RUN: {}, OTHER: {"members": ["python", "lua"], "method": "adapterfusion", "mask": "none"}}.items()}  # fmt: skip
    monkeypatch.setattr(live, "finished_run", lambda run: SimpleNamespace(params=params[Path(run).name]))
    first, other = Browser(reader, monkeypatch, runs_on(reader.base, DATA)).ask()["live"]["runs"]
    assert (first["name"], first["members"]) == (RUN, tiny.MEMBERS)
    assert (other["name"], other["members"]) == (OTHER, ["python", "lua"])
    assert [phase["title"] for phase in other["phases"]] == ["AdapterFusion"]


def test_the_bench_reads_the_checkpoint_phase_and_members_that_are_chosen(reader, monkeypatch):
    browser = Browser(reader, monkeypatch)
    form = {"prompt": TEXT["prompt"], "completion": TEXT["completion"], "phase": "phase2"}
    shown = [browser.ask(**form, run=name)["live"] for name in (OTHER, RUN)]
    muted = browser.ask(**form | {"phase": "phase1"}, run=RUN, muted=["python", "lua"], at="view=depth", theme="dark")
    expected = [reader.read(**TEXT | {"checkpoint": name}, phase="phase2") for name in (OTHER, RUN)]
    expected.append(reader.read(**TEXT, phase="phase1", muted=["python", "lua"]))
    shown_losses, expected_losses = (
        [[(state(r), loss(r)) for r in one] for one in readings]
        for readings, state, loss in (
            ([one["readings"] for one in (*shown, muted["live"])], itemgetter("state"), itemgetter("loss")),
            (expected, attrgetter("state"), attrgetter("loss")),
        )
    )
    assert shown_losses == expected_losses
    assert [one["label"] for one in muted["series"]] == [reading.state for reading in expected[-1]]
    assert (muted["at"], muted["live"]["theme"]) == ("view=depth", "dark"), "a new page opens where the old one was"
    assert "n = 1 text" in muted["live"]["about"] and "excluded from the softmax" in muted["live"]["about"]
