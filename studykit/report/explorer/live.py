"""What only a live kernel can show: weights on one's own text, with members muted, of any checkpoint and phase.

    live.bench(p.base, p.data, p.trained_runs)  # a cell's last value: a text, switches, a button

The model is loaded when the button is pressed and not before, so a batch run passes by, and its report leaves the
widgets out. `Bench` is the same without widgets. A muted member is excluded: the others share its weight, no parameter
is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from studykit.attention import snapshots
from studykit.attention.record import FusionRecord
from studykit.data import rows as data_rows
from studykit.data.prompts import EncodedRow
from studykit.errors import UserError
from studykit.report.explorer.page import explore
from studykit.runs.manifest import finished_run
from studykit.study.methods import PHASE_1, PHASES


@dataclass(frozen=True)
class Reading:
    """One text read by a fusion in one state."""

    state: str  # "as it was trained", with the mode of a mask that does not exclude; or which members are muted
    record: FusionRecord  # of the one text, every token in full
    loss: float  # mean nats per token of the completion
    written: str  # what the model itself writes under the prompt
    cut: bool  # whether prompt or completion was too long and is shortened


class Bench:
    """A base with the fusion of one checkpoint and phase at a time, to read texts with."""

    def __init__(self, base: str | Path, data: str | Path, checkpoints: Sequence[str | Path]):
        """Nothing is loaded yet. `checkpoints` are fusion runs on the base run `base`."""
        self.base, self.limits = base, data_rows.limits(data)
        self.made = {Path(run).name: finished_run(run).params for run in checkpoints}
        self.runs = {Path(run).name: run for run in checkpoints}
        self._loaded = self._model = self._state = None

    def phases(self, checkpoint: str) -> dict[str, str]:
        """The phases of a checkpoint, by their names in figures."""
        return {phase.title: phase.key for phase in PHASES[self.made[checkpoint]["method"]]}

    def own_mask(self, checkpoint: str, phase: str) -> list[str]:
        """The members that were masked while the phase trained."""
        return [self.made[checkpoint]["target"]] if phase == PHASE_1.key else []

    def read(
        self, prompt: str, completion: str = "", *, checkpoint: str, phase: str, muted: Sequence[str] | None = None
    ) -> list[Reading]:
        """The text read as the phase was trained and, if other members are muted, in that state too.

        From one reading to the next one thing changes. All members are masked in one mode, and muted ones are excluded;
        so where that is more than one step from the phase's own mask, a reading between them has of it what stays
        muted, excluded. Phase 1 under mask zero, with a member muted beside the target, is read with the target zeroed,
        with the target muted, with both muted.

        Args:
            completion: what the loss is of and what is read after the prompt; empty: what the model itself writes, as
                it was trained, so that all readings are of the same text.
            muted: members to exclude; None or the phase's own mask: the state in which it was trained, alone.

        Raises UserError for an empty prompt, an unknown member, or if nobody is left to attend to.
        """
        from studykit.data.prompts import encode_row
        from studykit.training.generate import complete

        made, own = self.made[checkpoint], self.own_mask(checkpoint, phase)
        members = list(made["members"])
        if unknown := sorted(set(muted or ()) - set(members)):
            raise UserError(f"muted names {unknown[0]!r}, which is no member; the members are {', '.join(members)}")
        muted = own if muted is None else [member for member in members if member in muted]
        if not prompt.strip():
            raise UserError("the prompt is empty; write a text for the model to read")
        if set(muted) == set(members):
            raise UserError(f"all members are muted ({', '.join(members)}); leave at least one to attend to")
        model, tokenizer = self._load(checkpoint, phase)
        row = data_rows.Row("own text", made["target"], prompt, completion)
        readings = []
        for masked, mode in _states(own, made["mask"] if own else "exclude", muted):
            self._mask(model, masked, mode)
            written = complete(model, tokenizer, [row], self.limits)[0]
            if not readings:  # one text for all
                row = replace(row, target=completion or written)
            encoded = encode_row(row, tokenizer, *self.limits)
            state = f"{', '.join(masked) or 'nobody'} muted" if readings else "as it was trained"
            state += f", {', '.join(masked)} zeroed" if mode == "zero" else ""
            record = self._capture(model, tokenizer, row, checkpoint, phase)
            loss = _loss(model, encoded)
            readings.append(Reading(state, record, loss, written, encoded.prompt_cut or encoded.target_cut))
        return readings

    def _load(self, checkpoint: str, phase: str):
        from studykit.training.base import load_base
        from studykit.training.fusions import load_trained

        if self._loaded is None:
            self._loaded = load_base(self.base)
            places = getattr(self._loaded[0].config, "max_position_embeddings", 0)
            # one's own prompt may be as long as the model bears: cut, it would lose its end
            self.limits = max(self.limits[0], places - self.limits[1]), self.limits[1]
        if self._state != (checkpoint, phase):
            if self._model is not None:
                self._model.unload()
            self._model = self._state = None  # if loading fails, nothing pretends to be loaded
            self._model = load_trained(self._loaded[0], self.runs[checkpoint], phase)
            self._state = checkpoint, phase
        return self._model, self._loaded[1]

    def _mask(self, model: Any, masked: Sequence[str], mode: str) -> None:
        from studykit.tuners import fusion_members

        fusion_members(model, list(masked), mode)

    def _capture(self, model: Any, tokenizer: Any, row: data_rows.Row, checkpoint: str, phase: str) -> FusionRecord:
        from studykit.attention.capture import capture

        made = self.made[checkpoint]
        recorded_as = next(known.recorded_as for known in PHASES[made["method"]] if known.key == phase)
        return capture(
            model, tokenizer, [row], target=made["target"], phase=recorded_as,
            max_prompt_tokens=self.limits[0], max_target_tokens=self.limits[1],
            method=snapshots.composition(made), checkpoint=checkpoint, base=Path(self.base).name,
            seed=made["seed"], progress=False,
        )  # fmt: skip


def _states(own: Sequence[str], mode: str, muted: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Masked members and mode, from a phase's own mask to the muted members, of which one thing changes at a time."""
    states = [(tuple(own), mode)]
    if list(muted) != list(own):
        states += [(tuple(member for member in own if member in muted), "exclude"), (tuple(muted), "exclude")]
    return list(dict.fromkeys(states))


def _loss(model: Any, encoded: EncodedRow) -> float:
    import torch

    device = next(model.parameters()).device
    batch = {name: torch.tensor([getattr(encoded, name)], device=device) for name in ("input_ids", "labels")}
    with torch.no_grad():
        return float(model(**batch).loss)


def bench(base: str | Path, data: str | Path, checkpoints: Sequence[str | Path], sample: int = 0) -> Any:
    """The widgets around a `Bench`, filled with a test row's text: an ipywidgets box to show in JupyterLab."""
    import ipywidgets as w

    able = Bench(base, data, checkpoints)
    first = next(iter(able.made))
    members, target = list(able.made[first]["members"]), able.made[first]["target"]
    row = data_rows.read_rows(data, target, "test")[sample]
    wide, flow = w.Layout(width="98%"), w.Layout(flex_flow="row wrap")
    prompt = w.Textarea(row.prompt, description="Prompt", rows=5, layout=wide)
    completion = w.Textarea(row.target, description="Completion", rows=5, layout=wide,
                            placeholder="empty: what the model itself writes")  # fmt: skip
    checkpoint = w.Dropdown(options=list(able.made), description="Checkpoint", layout=w.Layout(width="30rem"))
    phase = w.Dropdown(options=able.phases(first), description="Phase")
    narrow = w.Layout(width="auto")
    mute = {member: w.ToggleButton(False, description=member, layout=narrow) for member in members}
    button, out = w.Button(description="Read", button_style="primary", icon="play"), w.Output()
    for box in (prompt, completion, checkpoint):
        box.add_class(f"studykit-{box.description.lower()}")
    phase.value = list(phase.options.values())[-1]

    def choose(_) -> None:
        """A phase begins with its own members masked."""
        for member, switch in mute.items():
            switch.value = member in able.own_mask(checkpoint.value, phase.value)

    def read(_) -> None:
        button.disabled = True
        out.clear_output()
        try:
            with out:
                muted = [member for member, switch in mute.items() if switch.value]
                _show(partial(able.read, prompt.value, completion.value), checkpoint.value, phase.value, muted)
        finally:
            button.disabled = False

    phase.observe(choose, "value")
    checkpoint.observe(choose, "value")
    button.on_click(read)
    silent = w.HBox([w.Label("Mute", layout=w.Layout(margin="2px 10px 2px 54px")), *mute.values()], layout=flow)
    return w.VBox([prompt, completion, w.HBox([checkpoint, phase], layout=flow), silent, button, out])


def _show(read: Any, checkpoint: str, phase: str, muted: Sequence[str]) -> None:
    """Loss, text and weights, in the cell's output; a mistake as its sentence."""
    from IPython.display import display

    from studykit.report.tables import table, texts

    try:
        readings = read(checkpoint=checkpoint, phase=phase, muted=muted)
    except UserError as error:
        print(error)
        return
    rows = [{"state": r.state, "loss of the completion (nats per token)": f"{r.loss:.4f}"} for r in readings]
    cut = " The text is shortened: it was too long." if readings[0].cut else ""
    cut += " Who is muted is excluded from the softmax." if len(readings) > 1 else ""
    name = readings[0].record.phase
    table(rows, f"{checkpoint}, {name}: n = 1 text, {readings[0].record.counts[0, 1]} completion tokens.{cut}")
    texts([{f"written, {r.state}": r.written for r in readings}])
    display(explore({r.state: r.record for r in readings}, title="Own text"))
