"""What needs a kernel: own text is read as training would read it, a muted member counts for nothing, all is undone."""

from __future__ import annotations

import numpy as np
import pytest

from studykit import attention
from studykit.explorer.live import Bench, bench
from studykit.params import UserError
from tests import tiny

RUN = "lua-advfusion-s0-0000000004"
TEXT = {"prompt": "count to 3 in lua, case 2\n", "completion": "lua: 0 1 2", "checkpoint": RUN}


@pytest.fixture(scope="module")
def able(tmp_path_factory):
    """A bench over a fusion run of two phases with random weights."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_HOME", str(home))
        patch.chdir(home)
        p = tiny.trained_fusion(home, "zero")
        yield Bench(p.base, p.data, [p.out])


def test_own_text_is_read_as_it_was_trained(able):
    (reading,) = able.read(**TEXT, phase="phase2")
    (sample,) = reading.record.samples
    assert "".join(sample.tokens).startswith(TEXT["prompt"] + TEXT["completion"])
    assert attention.checks(reading.record)["ok"] and reading.loss > 0 and not reading.cut
    assert (reading.record.checkpoint, reading.record.seed, reading.record.mask) == (RUN, 0, "none")
    assert able.read(**TEXT, phase="phase2")[0].loss == reading.loss
    (first,) = able.read(**TEXT, phase="phase1")
    assert (first.record.mask, first.record.masked) == ("zero", ["lua"]), "phase 1 under its own mask"
    assert first.loss != reading.loss


def test_a_muted_member_counts_for_nothing_and_text_loss_and_weights_change(able):
    trained, muted = able.read(**TEXT, phase="phase2", muted=["lua"])
    own = trained.record.target_index
    assert trained.record.samples[0].weights[..., own].any() and not muted.record.samples[0].weights[..., own].any()
    others = np.delete(trained.record.samples[0].weights[0], own, axis=-1).astype(float)
    expected = others / others.sum(-1, keepdims=True)  # in the first layer the queries are still the same
    np.testing.assert_allclose(np.delete(muted.record.samples[0].weights[0], own, axis=-1), expected, atol=2e-3)
    assert muted.loss != trained.loss and "lua muted" in muted.state
    assert trained.record.samples[0].tokens == muted.record.samples[0].tokens, "the same text"
    assert able.read(**TEXT, phase="phase2")[0].loss == trained.loss, "no parameter was touched"


def test_without_a_completion_both_states_read_what_the_model_wrote(able):
    prompt = TEXT["prompt"]
    trained, muted = able.read(prompt, checkpoint=RUN, phase="phase1", muted=["python"])
    assert trained.written and trained.record.counts[0, attention.COMPLETION] > 1
    assert trained.record.samples[0].tokens == muted.record.samples[0].tokens


@pytest.mark.parametrize("given, sentence", [
    ({"prompt": " \n"}, "the prompt is empty"), ({"muted": tiny.MEMBERS}, "all members are muted"),
])  # fmt: skip
def test_mistakes_get_a_sentence(able, given, sentence):
    with pytest.raises(UserError, match=sentence):
        able.read(**TEXT | {"phase": "phase2"} | given)


def test_the_widgets_load_nothing_until_they_are_asked(able, monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr("studykit.base.load_base", lambda *_: pytest.fail("loaded before the button was pressed"))
    box = bench(able.base, "runs/data/tiny-0000000002", list(able.runs.values()))
    prompt, completion, chosen, silent, button, _ = box.children
    assert prompt.value == tiny.rows(1, first=12)[0]["prompt"] and completion.value
    checkpoint, phase = chosen.children
    switches = {switch.description: switch for switch in silent.children[1:]}
    assert checkpoint.value == RUN and phase.value == "phase2" and list(switches) == tiny.MEMBERS
    phase.value = "phase1"
    assert [name for name, switch in switches.items() if switch.value] == ["lua"]
    phase.value = "phase2"
    assert not any(switch.value for switch in switches.values())
