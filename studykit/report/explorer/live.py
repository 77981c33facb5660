"""A bench in a live kernel: the explorer's page reads a text of one's own, with any fusion and with members muted.

    runs = live.runs_on(p.base, p.data, p.trained_runs)  # the fusions of all methods, those of this notebook first
    live.bench(p.base, p.data, runs, shown={p.method: run.dir})  # the last value of a cell

The page opens with recorded weights. No page is made before a browser asks for it, and no model is loaded before a text
is read, so a notebook that runs in a batch does neither; its report leaves the bench out. `Bench` reads without a page.
A muted member is excluded: the others share its weight, and no parameter changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget

from studykit.attention import snapshots
from studykit.attention.record import FusionRecord, Origin
from studykit.data.encoding import EncodedRow
from studykit.data.rows import DataRun, Row
from studykit.errors import UserError
from studykit.report.explorer.page import SANDBOX, THEME_IN_JUPYTERLAB, explore
from studykit.runs import files
from studykit.runs.manifest import finished_run, read_manifest
from studykit.study.methods import PEFT_COMPOSITIONS, PHASE_1, PHASES


@dataclass(frozen=True)
class Reading:
    """One text as a fusion reads it under one mask."""

    state: str  # "as it was trained", or the muted members; members that are zeroed instead are named after it
    record: FusionRecord  # weights on the one text, with every token in full
    loss: float  # of the completion, mean nats per token
    written: str  # completion that the model itself writes after the prompt
    cut: bool  # whether prompt or completion was too long and is shortened


class Bench:
    """A base with the fusion of one run and phase at a time, which reads texts.

    Args:
        base: the run of the base model; it is loaded at the first `read`.
        data: the data run that the limits of a text's length are taken from.
        fusion_runs: fusion runs on this base; methods take the name of their directory.
    """

    def __init__(self, base: str | Path, data: str | Path, fusion_runs: Sequence[str | Path]):
        self.base, self.limits = base, DataRun(data).limits
        self.params = {Path(run).name: finished_run(run).params for run in fusion_runs}
        self.runs = {Path(run).name: run for run in fusion_runs}
        self._base_and_tokenizer: tuple[Any, Any] | None = None
        self._kept: str | None = None
        self._model: Any = None
        self._loaded_phase: tuple[str, str] | None = None

    def phases(self, checkpoint: str) -> dict[str, str]:
        """Returns the keys of a run's phases by their titles in figures."""
        return {phase.title: phase.key for phase in PHASES[self.params[checkpoint]["method"]]}

    def own_mask(self, checkpoint: str, phase: str) -> list[str]:
        """Returns the members that were masked while the phase was trained."""
        params = self.params[checkpoint]
        is_masked = phase == PHASE_1.key and params["mask"] != "none"
        return [params["masked_member"] or params["target"]] if is_masked else []

    def read(
        self,
        prompt: str,
        completion: str = "",
        *,
        checkpoint: str,
        phase: str,
        muted: Sequence[str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> list[Reading]:
        """Returns readings of a text: as the phase was trained and, if other members are muted, with these muted.

        Only one thing changes from a reading to the next. All masked members are masked in one mode, and muted ones are
        excluded; where that is more than one step away from the phase's own mask, a reading in between excludes those
        of its members that stay muted. So a text for phase 1 under the mask `zero`, with another member muted besides
        the target, is read three times: with the target zeroed, with the target muted, and with both muted.

        Args:
            completion: the text after the prompt, which the loss is of; if it is empty, the completion that the model
                writes as it was trained, so that all readings are of the same text.
            checkpoint: name of the fusion run.
            phase: key of the phase.
            muted: members to exclude; None or the phase's own mask gives the first reading alone.
            tell: is called with what happens now, as "Loading the base".

        Raises UserError for an empty prompt, an unknown member, or if all members are muted.
        """
        from studykit.data.encoding import encode_row
        from studykit.training.generate import complete
        from studykit.tuners import fusion_members

        params, own_mask = self.params[checkpoint], self.own_mask(checkpoint, phase)
        members = list(params["members"])
        if unknown := sorted(set(muted or ()) - set(members)):
            raise UserError(f"muted names {unknown[0]!r}, which is no member; the members are {', '.join(members)}")
        muted = own_mask if muted is None else [member for member in members if member in muted]
        if not prompt.strip():
            raise UserError("the prompt is empty; write a text for the model to read")
        if set(muted) == set(members):
            raise UserError(f"all members are muted ({', '.join(members)}); leave at least one that is not")
        model, tokenizer = self._load(checkpoint, phase, tell)
        row = Row("own text", params["target"], prompt, completion)
        readings: list[Reading] = []
        for masked, mode in _masks(own_mask, params["mask"] if own_mask else "exclude", muted):
            tell(f"Writing and reading with {', '.join(masked) or 'no member'} masked")
            fusion_members(model, list(masked), mode)
            written = complete(model, tokenizer, [row], self.limits)[0]
            if not readings:  # one text for all
                row = replace(row, target=completion or written)
            encoded = encode_row(row, tokenizer, *self.limits)
            state = f"{', '.join(masked) or 'no member'} muted" if readings else "as it was trained"
            state += f", {', '.join(masked)} zeroed" if mode == "zero" else ""
            record = self._capture(model, tokenizer, row, checkpoint, phase)
            loss = _loss(model, encoded)
            readings.append(Reading(state, record, loss, written, encoded.prompt_cut or encoded.target_cut))
        return readings

    def _load(self, checkpoint: str, phase: str, tell: Callable[[str], None]) -> tuple[Any, Any]:
        """Returns the model of a run and phase, and the tokenizer; it loads only what is not loaded."""
        from studykit.training.base import load_base
        from studykit.training.fusions import load_trained

        kept = self.params[checkpoint].get("quantization")  # the base is kept in memory as in the fusion's training
        if self._base_and_tokenizer is None or self._kept != kept:
            tell(f"Loading the base {Path(self.base).name}")
            self._model = self._loaded_phase = None
            self._base_and_tokenizer, self._kept = load_base(self.base, kept), kept
            positions = getattr(self._base_and_tokenizer[0].config, "max_position_embeddings", 0)
            # a prompt of one's own may be as long as the model accepts: a cut would remove its end
            self.limits = max(self.limits[0], positions - self.limits[1]), self.limits[1]
        base, tokenizer = self._base_and_tokenizer
        if self._loaded_phase != (checkpoint, phase):
            if self._model is not None:
                self._model.unload()
            self._model = self._loaded_phase = None  # stays so if loading fails
            tell(f"Loading the fusion {checkpoint}")
            self._model = load_trained(base, self.runs[checkpoint], phase)
            self._loaded_phase = checkpoint, phase
        return self._model, tokenizer

    def _capture(self, model: Any, tokenizer: Any, row: Row, checkpoint: str, phase: str) -> FusionRecord:
        from studykit.attention.capture import capture

        params = self.params[checkpoint]
        recorded_as = next(known.recorded_as for known in PHASES[params["method"]] if known.key == phase)
        origin = Origin(snapshots.composition_name(params), checkpoint, Path(self.base).name, params["seed"])
        about = {"target": params["target"], "phase": recorded_as, "limits": self.limits, "origin": origin}
        return capture(model, tokenizer, [row], **about, progress=False)


def _masks(own_mask: Sequence[str], mode: str, muted: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Returns masked members and mode for each reading, from a phase's own mask to the muted members."""
    masks = [(tuple(own_mask), mode)]
    if list(muted) != list(own_mask):
        masks += [(tuple(member for member in own_mask if member in muted), "exclude"), (tuple(muted), "exclude")]
    return list(dict.fromkeys(masks))


def _loss(model: Any, encoded: EncodedRow) -> float:
    import torch

    device = next(model.parameters()).device
    batch = {name: torch.tensor([getattr(encoded, name)], device=device) for name in ("input_ids", "labels")}
    with torch.no_grad():
        return float(model(**batch).loss)


def runs_on(base: str | Path, data: str | Path, first: Sequence[str | Path] = ()) -> list[str]:
    """Returns the finished fusion runs on a base and data whose attention can be read, of all methods.

    Args:
        first: runs that come before the others.
    """
    here = files.home() / "runs/fusion"
    found = [str(run) for run in first]
    for place in sorted(here.glob("*/")):
        manifest, name = read_manifest(place), f"runs/fusion/{place.name}"
        params = manifest.params if manifest else {}
        on_both = (params.get("base"), params.get("data")) == (str(base), str(data))
        is_trial = params.get("validation", "all") != "all"
        if on_both and params["method"] not in PEFT_COMPOSITIONS and not is_trial and name not in found:
            found.append(name)
    return found


def bench(
    base: str | Path, data: str | Path, fusion_runs: Sequence[str | Path], *, shown: Any, sample: int = 0
) -> LivePage:
    """Returns the bench over fusion runs on a base; a notebook shows it when it is the last value of a cell.

    Args:
        shown: what the page shows before a text is read, as `explore` takes it.
        sample: index of the test row whose prompt and target fill in the text.
    """
    reader = Bench(base, data, fusion_runs)
    first = next(iter(reader.params))
    row = DataRun(data).rows(reader.params[first]["target"], "test")[sample]
    return LivePage(reader, shown, prompt=row.prompt, completion=row.target)


class LivePage(anywidget.AnyWidget):
    """The explorer's page with a bench; the page asks for readings of a text, and this widget answers.

    Pages travel in messages, which a saved notebook does not keep.
    """

    _esm = (Path(__file__).parent / "js/frame.js").read_text(encoding="utf-8")
    _css = THEME_IN_JUPYTERLAB

    def __init__(self, reader: Bench, shown: Any, *, prompt: str, completion: str):
        super().__init__()
        first = next(iter(reader.params))
        last_phase = list(reader.phases(first).values())[-1]
        self.reader = reader
        self.form = {  # what the page shows in its boxes, and the readings
            "runs": [_choice(reader, name) for name in reader.params],
            "run": first,
            "phase": last_phase,
            "muted": reader.own_mask(first, last_phase),
            "prompt": prompt,
            "completion": completion,
            "readings": [],
            "about": "",
            "theme": "auto",
        }
        self.last = {"what": shown, "title": "Recorded weights, and a bench for your own text", "at": ""}
        self.on_msg(self.answer)

    def __repr__(self) -> str:
        return "[Bench: run this notebook in JupyterLab to read your own text.]"

    def answer(self, _: Any, asked: dict[str, Any], __: Any) -> None:
        """Answers a message from a browser: with the page, with that of new readings, or with why there are none.

        Args:
            asked: `view`, which names the frame that asks, and, for readings, `read`: prompt, completion, run, phase,
                muted, theme, and the view (`at`) in which the page opens again.
        """
        try:
            page = self._read(asked["read"], asked["view"]) if "read" in asked else self._page(self.form, self.last)
        except UserError as error:
            return self.send({"view": asked["view"], "refused": str(error)})
        except BaseException as error:  # an interrupt, too: the page waits for an answer
            self.send({"view": asked["view"], "refused": f"The kernel failed: {error!r}"})
            raise
        return self.send({"view": asked["view"], **page})

    def _read(self, given: dict[str, Any], view: str) -> dict[str, Any]:
        """Returns the page of the readings of a text; the form and the last page stay as they were if it fails."""
        readings = self.reader.read(
            given["prompt"], given["completion"], checkpoint=given["run"], phase=given["phase"], muted=given["muted"],
            tell=lambda now: self.send({"view": view, "now": now}),
        )  # fmt: skip
        results = [
            {"state": r.state, "loss": r.loss if math.isfinite(r.loss) else None, "written": r.written}
            for r in readings
        ]
        at = given["at"] if self.form["readings"] else "view=tokens"
        form = self.form | given | {"readings": results, "about": _about(given["run"], readings)}
        last = {"what": {r.state: r.record for r in readings}, "title": "Own text", "at": at}
        page = self._page(form, last)
        self.form, self.last = form, last
        return page

    @staticmethod
    def _page(form: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
        """Returns what a frame needs to show a page."""
        page = explore(**last, live=form)
        return {"page": page.html, "height": page.height, "title": page.title, "sandbox": SANDBOX}


def _choice(reader: Bench, name: str) -> dict[str, Any]:
    """Returns a run as the page offers it: its members, and its phases with the members that each masks."""
    phases = [
        {"key": key, "title": title, "masked": reader.own_mask(name, key)} for title, key in reader.phases(name).items()
    ]
    return {"name": name, "members": list(reader.params[name]["members"]), "phases": phases}


def _about(run: str, readings: Sequence[Reading]) -> str:
    """Returns what the readings are of, in sentences."""
    record = readings[0].record
    text = f"{run}, {record.phase}: n = 1 text, {record.counts[0, 1]} completion tokens."
    text += " The text is shortened: it was too long." if readings[0].cut else ""
    return text + (" Muted members are excluded from the softmax." if len(readings) > 1 else "")
