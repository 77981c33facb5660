"""The explorer as a reader uses it, in chromium: every view, filters, hover, keys, export; nothing loads, nothing runs.

What is painted is read from the canvas, pixel by pixel, and compared with colours that are computed here.

Pages are shown as a notebook shows them, in the sandboxed frame of a page that itself allows nothing from a network.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import contextmanager
from dataclasses import replace
from xml.dom import minidom

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.colors import to_rgb
from PIL import Image

import studykit
from studykit.attention.record import POOLS, entropy, mean_weights, target_weights
from studykit.attention.token_kinds import KINDS
from studykit.evaluation.student import student_t
from studykit.report import documents
from studykit.report.explorer.payload import RAMP
from studykit.report.figures import style
from studykit.training.result import TrainingResult
from tests import made_runs
from tests.made_records import CODE, HOSTILE, MEMBERS, large_record, made_record, mean_and_sd, sample_means

PAIR = {"phase 1": [made_record(phase="phase 1", mask="exclude", seed=seed) for seed in (0, 1)],
        "phase 2": [made_record(seed=seed) for seed in (0, 1)]}  # fmt: skip


READBACK = "Canvas2D: Multiple readback operations"  # Chromium's message about the pixels that these tests read


class Opened:
    """An explorer in a page: its frame, its requests to the network, and the messages on its console."""

    def __init__(self, page, explorer, file):
        self.page, self.requests, self.messages = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(message.text) if READBACK not in message.text else None)
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        file.write_text(documents.document("Report", Markup(explorer.frame), "mark"), encoding="utf-8")
        page.goto(file.as_uri())
        self.address = file.as_uri()
        self.frame = next(frame for frame in page.frames if frame.parent_frame)
        self.frame.wait_for_selector("html[data-ready]", timeout=20_000)

    def view(self, name):
        self.frame.click(f"#tab-{name}")

    def choose(self, **choices):
        for name, value in choices.items():
            if name in ("a", "b"):
                self.frame.click(f"#chip-{name}-{value}")
            else:
                self.frame.select_option(f"#choose-{name}", value)

    def choose_kinds(self, *kinds):
        """Tick the boxes of these kinds alone."""
        self.open("kinds")
        for box in self.frame.eval_on_selector_all("[id^=choose-kind-]", "boxes => boxes.map(box => box.id)"):
            self.frame.set_checked(f"#{box}", int(box.rpartition("-")[2]) in kinds)

    def open(self, menu):
        """Unfold a list of boxes, which stands open from the start where the page is wide."""
        if not self.frame.evaluate(f"document.querySelector('#choose-{menu}').parentElement.open"):
            self.frame.click(f"#choose-{menu}")

    def cells(self, words=""):
        """(index, label) of the cells whose labels begin with these words."""
        labels = self.frame.evaluate("document.querySelector('canvas').drawn.cells.map(c => c.label)")
        return [(i, text) for i, text in enumerate(labels) if text.startswith(words)]

    def boxes(self):
        """Where the cells are on the canvas."""
        return self.frame.evaluate("document.querySelector('canvas').drawn.cells.map(({x, y, w, h}) => ({x, y, w, h}))")

    def at(self, index):
        """Where the middle of a cell is, in the frame's canvas."""
        cell = self.frame.evaluate(f"(({{x, y, w, h}}) => ({{x, y, w, h}}))"
                                   f"(document.querySelector('canvas').drawn.cells[{index}])")  # fmt: skip
        return {"x": cell["x"] + cell["w"] / 2 + 2, "y": cell["y"] + cell["h"] / 2 + 2}

    def pixels(self, index):
        """The left upper corner of a cell on the canvas, where no text is: its colour, 0 to 255."""
        return np.array(
            self.frame.evaluate(f"""() => {{
            const canvas = document.querySelector('canvas'), c = canvas.drawn.cells[{index}], dpr = devicePixelRatio;
            const at = [c.x + 2 + 2, c.y + 2 + 2 - parseFloat(canvas.style.top)].map(v => Math.round(v * dpr));
            return [...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3); }}""")
        )

    def shades(self, index):
        """How many colours a cell has on the canvas: one, unless something is written on it."""
        return self.frame.evaluate(f"""() => {{
            const canvas = document.querySelector('canvas'), c = canvas.drawn.cells[{index}], dpr = devicePixelRatio;
            const box = [c.x + 4, c.y + 4 - parseFloat(canvas.style.top), c.w - 6, c.h - 6].map(v => v * dpr | 0);
            const {{data}} = canvas.getContext('2d').getImageData(...box), seen = new Set();
            for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 3).join());
            return seen.size; }}""")

    def hatched(self):
        """The labels of the hatched cells, of which the picture has thin lines."""
        svg = minidom.parse(str(self.saved("SVG").path()))
        lines = [node for node in svg.getElementsByTagName("polyline") if node.getAttribute("stroke-width") == "0.6"]
        starts = [tuple(map(float, node.getAttribute("points").split()[0].split(","))) for node in lines]
        cells = self.frame.evaluate("document.querySelector('canvas').drawn.cells.map(({x, y, w, h, label}) => "
                                    "({x, y, w, h, label}))")  # fmt: skip
        return [
            cell["label"]
            for cell in cells
            if any(0 <= x - cell["x"] <= cell["w"] + 0.1 and 0 <= y - cell["y"] <= cell["h"] + 0.1 for x, y in starts)
        ]

    def legend_tells_of_hatching(self):
        svg = minidom.parse(str(self.saved("SVG").path()))
        words = [node.firstChild.data for node in svg.getElementsByTagName("text") if node.firstChild]
        return "the 95 % interval over seeds (Student's t) includes 0" in words

    def hover(self, index):
        self.frame.hover("canvas", position=self.at(index))
        return self.frame.text_content(".tip")

    def click(self, index):
        self.frame.click("canvas", position=self.at(index))

    def caption(self):
        """The caption with the sentences in the fold below it."""
        return " ".join(self.frame.locator(".caption, .stands p").all_text_contents())

    def saved(self, kind):
        self.page.wait_for_timeout(250)  # Chromium drops downloads of a page that starts ten in a burst
        with self.page.expect_download() as download:
            self.frame.click(f".exports >> text={kind}")
        return download.value

    def rows(self, **wanted):
        """The exported rows that have these values."""
        rows = json.loads(self.saved("JSON").path().read_text())["rows"]
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


@pytest.fixture
def show(browser, tmp_path):
    @contextmanager
    def opened(what, width=1100, height=900, scheme="light", view="layers", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        shown = Opened(context.new_page(), studykit.explore(what, view=view, **options), tmp_path / "page.html")
        yield shown
        assert shown.requests == [shown.address] or set(shown.requests) <= {shown.address, "about:srcdoc"}, (
            "nothing loads"
        )
        assert shown.messages == []
        context.close()

    return opened


def shade(value, scale=style.SEQUENTIAL, turned=False):
    """The colour of a value between 0 and 1 on a scale, 0 to 255."""
    stops = np.array([to_rgb(scale(at)) for at in RAMP])[:: -1 if turned else 1]
    return 255 * np.array([np.interp(value, RAMP, stops[:, channel]) for channel in range(3)])


def paper(page):
    name = "getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()"
    return 255 * np.array(to_rgb(page.frame.evaluate(name)))


def won(weights, page):
    """The colour of a token's winner, paler towards uniform."""
    best, uniform = int(np.argmax(weights)), 1 / len(weights)
    strength = 0.2 + 0.75 * np.clip((weights[best] - uniform) / (1 - uniform), 0, 1)
    return (1 - strength) * paper(page) + strength * 255 * np.array(to_rgb(style.COLOURS[best]))


def matrix(rows, record, name="weight"):
    """Exported rows of one series as an array (L, A)."""
    values = np.full((len(record.layers), len(record.members)), np.nan)
    for row in rows:
        values[record.layers.index(row["layer"]), record.members.index(row["member"])] = row[name]
    return values


def test_the_heatmap_says_its_numbers_and_what_they_stand_on(show):
    with show(PAIR) as page:
        assert len(page.cells("phase 2 · L")) == 9, "the last phase comes first"
        page.choose(b="0")
        record = PAIR["phase 1"][0]
        assert len(page.cells("phase 1 · L")) == len(record.layers) * len(MEMBERS)
        index, words = page.cells("phase 1 · L2 · ruby")[0]
        mean = np.mean([mean_weights(r)[1, 1] for r in PAIR["phase 1"]])
        assert f"{100 * mean:.1f} %" in words and page.hover(index) == words
        assert page.hover(page.cells("phase 1 · L2 · lua")[0][0]).startswith("phase 1 · L2 · lua (target): 0.0 %")
        for said in ("n = 3 samples", f"{record.counts[:, 1].sum()} completion tokens", "padding excluded",
                     "mean of 2 seeds", "lua-made-s0, lua-made-s1", "made-base", "lua masked (exclude)"):  # fmt: skip
            assert said in page.caption(), said
        assert "add up to 1" in page.frame.text_content(".check") and "exactly 0" in page.frame.text_content(".check")


def test_exported_numbers_are_those_of_the_records(show):
    record = PAIR["phase 2"][1]
    with show(PAIR) as page:
        values = matrix(page.rows(), record)
        np.testing.assert_allclose(values, mean_and_sd(PAIR["phase 2"])[0], atol=1e-6)
        spread = [row["sd_over_seeds"] for row in page.rows(layer="L1")]
        np.testing.assert_allclose(spread, mean_and_sd(PAIR["phase 2"])[1][0], atol=1e-6)
        page.choose(seed="1")
        for pool in POOLS:
            page.choose(pool=pool)
            np.testing.assert_allclose(matrix(page.rows(), record), mean_weights(record, pool), atol=1e-6)
        for kind, name in ((0, "keyword"), (1, "identifier"), (3, "comment")):
            page.choose_kinds(kind)
            expected = mean_weights(record, "both", kinds=[name])
            np.testing.assert_allclose(matrix(page.rows(), record), expected, atol=1e-6)
            assert f"of kind {name}" in page.caption()
        page.choose_kinds(0, 3)
        expected = mean_weights(record, "both", kinds=["keyword", "comment"])
        np.testing.assert_allclose(matrix(page.rows(), record), expected, atol=1e-6)
        assert "of kind keyword or comment" in page.caption()
        page.choose_kinds()
        page.choose(sample="2", pool="completion")
        expected = sample_means(record)[2]
        np.testing.assert_allclose(matrix(page.rows(), record), expected, atol=5e-3)
        page.choose(sample="-1", quantity="share")
        shares = [row["share"] for row in page.rows(layer="L1")]
        np.testing.assert_allclose(shares, mean_weights(record, weighted=True)[0], atol=1e-6)
        page.choose(quantity="weight")
        with page.saved("CSV").path().open(newline="") as file:
            rows = [row | {"weight": float(row["weight"])} for row in csv.DictReader(file)]
        np.testing.assert_allclose(matrix(rows, record), mean_weights(record), atol=1e-6)


def test_what_is_painted_is_what_is_said(show):
    record = PAIR["phase 2"][0]
    mean = mean_weights(record)
    for scheme, turned in (("light", False), ("dark", True)):
        with show(record, scheme=scheme) as page:
            for most, choice in ((1.0, "full"), (mean.max(), "most")):
                page.choose(scale=choice)
                for layer, name in enumerate(record.layers):
                    for member, of in enumerate(MEMBERS):
                        (index, _), *others = page.cells(f"phase 2 · {name} · {of}")
                        assert not others and page.shades(index) > 3, "the number is written in the cell"
                        expected = shade(mean[layer, member] / most, turned=turned)
                        np.testing.assert_allclose(page.pixels(index), expected, atol=3)
            picture = page.saved("SVG").path().read_text()
            ink = page.frame.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()")
            assert picture.count(f'stroke="{ink}" stroke-width="2"') == 1, "the target is framed"
            sheet = np.asarray(Image.open(io.BytesIO(page.saved("PNG").path().read_bytes())).convert("RGB"), float)
            cell = page.frame.evaluate("(({x, y}) => [x, y])(document.querySelector('canvas').drawn.cells[0])")
            x, y = (round(2 * (at + 2 + 4)) for at in cell)
            np.testing.assert_allclose(sheet[y, x], page.pixels(0), atol=3)
            np.testing.assert_allclose(sheet[1, 1], paper(page), atol=1)


def test_panels_share_one_scale(show):
    with show(PAIR, view="all") as page:
        page.choose(scale="most")
        means = {phase: np.mean([mean_weights(r) for r in records], 0) for phase, records in PAIR.items()}
        most = max(mean.max() for mean in means.values())
        for phase, mean in means.items():
            (index, _) = page.cells(f"{phase} · L1 · python")[0]
            np.testing.assert_allclose(page.pixels(index), shade(mean[0, 0] / most), atol=3)


def test_a_file_tells_what_it_is_of(show):
    with show(PAIR) as page:
        page.choose(pool="both", sample="1")
        page.choose_kinds(1)
        row = page.rows(layer="L2", member="lua")[0]
        about = {"pool": "both", "kind": "identifier", "sample": "row 1", "samples": 1, "seeds": "0 1",
                 "checkpoints": "lua-made-s0 lua-made-s1", "target": "lua"}  # fmt: skip
        assert about.items() <= row.items()
        told = json.loads(page.saved("JSON").path().read_text())
        assert (told["tokens"], told["kind"], told["sample"], told["seed"]) == ("both", "identifier", "row 1", "mean")
        assert [run["checkpoint"] for run in told["series"][0]["records"]] == ["lua-made-s0", "lua-made-s1"]
        assert "± 0.4 points" in told["caption"], "a mean of rounded weights says so"


def test_a_difference_on_one_sample_is_of_the_same_seeds(show):
    size = 2 * sum(r.samples[0].weights.size for r in PAIR["phase 2"])
    for budget in range(0, 3 * size, size // 3):
        with show(PAIR, view="compare", budget=budget) as page:
            page.choose(sample="0")
            seeds = {row["series"]: row["seeds"] for row in page.rows()}
            assert len(set(seeds.values())) == 1, "phases and difference stand on the same seeds"
    seeds = {"a": PAIR["phase 2"], "b": PAIR["phase 2"][:1]}
    with show(seeds, view="compare") as page:
        differences = {row["weight_difference"] for row in page.rows(series="b − a")}
        assert differences == {0}, "nothing but the missing seed differs"
        assert "Only seeds that both have are counted" in page.caption()


def test_weights_against_uniform_and_against_the_initialisation(show):
    init = [made_record(phase="init", seed=seed) for seed in (0, 1)]
    masked = made_record(phase="phase 1", mask="exclude")
    with show({"initialisation": init, "masked": masked, "phase 2": PAIR["phase 2"]}) as page:
        page.choose(scale="uniform")
        record = PAIR["phase 2"][0]
        by_seed = np.array([mean_weights(r) - 1 / 3 for r in PAIR["phase 2"]])
        rows = page.rows()
        np.testing.assert_allclose(matrix(rows, record, "against_uniform"), by_seed.mean(0), atol=1e-6)
        np.testing.assert_allclose(matrix(rows, record), by_seed.mean(0) + 1 / 3, atol=1e-6)
        half = student_t(0.975, 1) * by_seed.std(0, ddof=1) / np.sqrt(2)
        for end, expected in (("low", by_seed.mean(0) - half), ("high", by_seed.mean(0) + half)):
            np.testing.assert_allclose(matrix(rows, record, f"{end}_over_seeds"), expected, atol=1e-5)
        most = np.abs(by_seed.mean(0)).max()
        for layer in range(3):
            for member, name in enumerate(MEMBERS):
                index, words = page.cells(f"phase 2 · L{layer + 1} · {name}")[0]
                value = by_seed.mean(0)[layer, member]
                assert f"{100 * value:+.1f} points against uniform ({3 * value + 1:.2f} × uniform)" in words
                expected = shade(0.5 + value / most / 2, style.DIVERGING)
                np.testing.assert_allclose(page.pixels(index), expected, atol=4)
        page.choose(b="1")
        halves = matrix(page.rows(), masked, "against_uniform")
        np.testing.assert_allclose(halves[:, :2], mean_weights(masked)[:, :2] - 1 / 2, atol=1e-6)
        assert (halves[:, 2] == 0).all(), "an excluded member takes no part"
        times = matrix(page.rows(), masked, "times_uniform")
        np.testing.assert_allclose(times, 2 * mean_weights(masked), atol=1e-6)
        page.choose(b="2", scale="init")
        change = np.mean([mean_weights(b) - mean_weights(a) for a, b in zip(init, PAIR["phase 2"], strict=True)], 0)
        np.testing.assert_allclose(matrix(page.rows(), record, "against_init"), change, atol=1e-6)
        page.view("all")
        assert "Without an initialisation: initialisation." in page.caption()
        page.choose(by="member")
        ruby = [row["against_init"] for row in page.rows(member="ruby", series="phase 2")]
        np.testing.assert_allclose(ruby[::-1], change[:, 1], atol=1e-6)  # the last layer comes first


@pytest.mark.parametrize("seeds", [1, 2, 4, 13])
def test_what_other_seeds_could_turn_around_is_hatched(show, seeds):
    records = [made_record(seed=seed) for seed in range(seeds)]
    values = np.array([mean_weights(record) - 1 / 3 for record in records])
    half = student_t(0.975, seeds - 1) * values.std(0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.zeros((3, 3))
    open_signs = np.abs(values.mean(0)) < half
    with show({"phase 2": records}) as page:
        page.choose(scale="uniform")
        hatched = page.hatched()
        assert hatched == [words for _, words in page.cells() if words in hatched], "once each"
        found = [
            [any(f"L{layer + 1} · {name}" in words for words in hatched) for name in MEMBERS] for layer in range(3)
        ]
        np.testing.assert_array_equal(found, open_signs)
        assert page.legend_tells_of_hatching() == (seeds > 1)
        page.choose(scale="full")
        assert not page.hatched() and not page.legend_tells_of_hatching()


def test_a_change_that_only_some_seeds_have_is_hatched(show):
    same, moved = PAIR["phase 2"][0], made_record(seed=7)
    with show({"before": PAIR["phase 2"], "after": [same, replace(moved, seed=1)]}, view="compare") as page:
        assert page.hatched() == [words for _, words in page.cells("after − before")]
        page.choose(a="1")
        assert not page.hatched(), "no seed changed"


def test_what_a_view_cannot_show_is_named(show):
    with show({"lua": made_record(), "go": made_record([CODE], members=["python", "ruby", "go"])}) as page:
        page.view("all")
        assert "n = 3 samples" in page.caption() and "n = 1 sample," in page.caption()
        page.choose(sample="1")
        for view in ("all", "depth"):
            page.view(view)
            assert "Not shown: go (sample row 1 is not kept token by token)" in page.caption()
        page.view("layers")
        assert page.caption() == "Sample row 1 is not kept token by token."
        page.view("tokens")
        assert "Sample row 1 is not kept token by token for go." == page.caption()
        page.choose(sample="0")
        assert "1 of 1 samples can be read" in page.caption()


def test_uniform_is_over_the_members_that_take_part(show):
    first = made_record(phase="phase 1", mask="exclude")
    with show({"phase 1": first, "phase 2": made_record()}, view="depth") as page:
        words = page.saved("SVG").path().read_text()
        assert words.count("uniform of 2<") == words.count("uniform of 3<") == 2


def test_phases_are_compared_on_the_same_samples(show):
    with show(PAIR, view=None) as page:
        assert page.frame.get_attribute("#tab-compare", "aria-selected") == "true", "the first view of a pair"
        record = PAIR["phase 1"][0]
        means = [np.mean([mean_weights(r) for r in PAIR[phase]], axis=0) for phase in PAIR]
        rows = page.rows(series="phase 2 − phase 1")
        np.testing.assert_allclose(matrix(rows, record, "weight_difference"), means[1] - means[0], atol=1e-6)
        assert rows[0]["checkpoints"] == "lua-made-s0 lua-made-s1 less lua-made-s0 lua-made-s1"
        by_seed = [mean_weights(b) - mean_weights(a) for a, b in zip(*PAIR.values(), strict=True)]
        spread = np.std(by_seed, axis=0, ddof=1)
        np.testing.assert_allclose(matrix(rows, record, "sd_over_seeds"), spread, atol=1e-6)
        assert "Both have the same samples" in page.caption()
        index, words = page.cells("phase 2 − phase 1 · L2 · ruby")[0]
        assert f"{100 * (means[1] - means[0])[1, 1]:+.1f} points" in words
        limit = np.abs(means[1] - means[0]).max()
        expected = shade(0.5 + (means[1] - means[0])[1, 1] / limit / 2, style.DIVERGING)
        np.testing.assert_allclose(page.pixels(index), expected, atol=3)
    other = {"lua": made_record(), "go": made_record([CODE], members=["python", "go"])}
    with show(other) as page:
        page.view("compare")
        assert "NOT the same" in page.caption() and "there is no difference" in page.caption()


def test_small_multiples_by_run_and_by_member(show):
    with show({"lua": made_record(), "go": made_record(members=["python", "ruby", "go"])}) as page:
        page.view("all")
        assert [len(page.rows(series=name, member=name, target=name)) for name in ("lua", "go")] == [3, 3]
        assert len(page.cells("go · L1 · go (target)")) == 1
        page.choose(by="member")
        assert [len(page.cells(f"{name} · ")) for name in ("python", "go")] == [6, 6]
        assert {row["weight"] for row in page.rows(member="go", series="lua")} == {None}, "no such member there"


@pytest.mark.parametrize("layers", [3, 12])
def test_the_frame_of_all_series_cuts_no_panel(show, layers):
    states = ("init", "phase 1", "phase 2")
    what = {f"method {i} · {state}": made_record(layers=layers, phase=state) for i in range(4) for state in states}
    with show(what, width=1280, view="all") as page:
        shown, whole = page.frame.evaluate("(s => [s.clientHeight, s.scrollHeight])(document.querySelector('.stage'))")
        assert len(page.cells()) == 12 * layers * 3 and whole <= shown, "nothing has to be scrolled"


def test_the_frame_of_the_comparison_cuts_no_panel(show):
    states = {"adapterfusion": 2, "advfusion_none": 3, "advfusion_exclude": 4, "adapterfusion~lua": 2}
    phases = ("init", "phase 1", "phase 2")
    members = ("python", "javascript", "ruby", "lua")
    what = {f"{method} · state {i}": made_record(members=members, phase=phases[min(i, 2)])
            for method, count in states.items() for i in range(count)}  # fmt: skip
    with show(what, width=1280, view="all") as page:
        shown, whole = page.frame.evaluate("(s => [s.clientHeight, s.scrollHeight])(document.querySelector('.stage'))")
        assert len(page.cells()) == 11 * 3 * 4 and whole <= shown, "as in notebook 06 of the quickstart"
        assert len({cell["y"] for cell in page.boxes()}) == 2 * 3, "in two rows, for the report's length"


def test_cells_grow_into_the_space(show):
    for view in ("layers", "compare"):
        with show({"a": made_record(seed=0), "b": made_record(seed=1)}, view=view, width=1280, height=900) as page:
            boxes = page.boxes()
            used = max(box["y"] + box["h"] for box in boxes) / page.frame.evaluate(
                "document.querySelector('.stage').clientHeight")  # fmt: skip
            across = max(box["x"] + box["w"] for box in boxes) / page.frame.evaluate(
                "document.querySelector('.stage').clientWidth")  # fmt: skip
            assert 0.85 < used < 1 and 0.8 < across < 1, (view, used, across)


def test_the_states_of_a_method_have_its_colour_and_differ_otherwise(show):
    init, masked = made_record(phase="init"), made_record(phase="phase 1", mask="exclude")
    states = {"initialisation": init, "phase 1, masked": masked, "phase 1, restored": made_record(phase="phase 1"),
              "phase 2": made_record()}  # fmt: skip
    looks = style.method_looks(["base", "lora", "advfusion_exclude"])
    with show({"advfusion_exclude": states}, view="depth", looks=looks) as page:
        own = looks["advfusion_exclude"].colour
        swatches = page.frame.eval_on_selector_all(
            ".swatch", "all => all.map(one => [one.style.borderColor, one.style.backgroundColor])")  # fmt: skip
        assert len({tuple(swatch) for swatch in swatches}) == 4, "each state differs from the others"
        assert [border == css(own) for border, _ in swatches] == [False, True, True, True], "paler before training"
        assert swatches[-1][1] == css(own), "the last state is filled"
        svg = minidom.parse(str(page.saved("SVG").path()))
        lines = {node.getAttribute("stroke-dasharray") for node in svg.getElementsByTagName("polyline")
                 if node.getAttribute("stroke-width") == "2.4"}  # fmt: skip
        assert len(lines) == 4 and "" in lines, "and in its line"


def css(colour):
    return f"rgb({', '.join(str(round(255 * part)) for part in to_rgb(colour))})"


def test_depth_has_entropy_target_share_and_the_spread_of_seeds(show):
    with show(PAIR, view="depth") as page:
        records = PAIR["phase 2"]
        for quantity, of in (("target_weight", target_weights), ("entropy_bits", entropy)):
            rows = page.rows(series="phase 2", quantity=quantity)
            middle, spread = mean_and_sd(records, of)
            np.testing.assert_allclose([row["value"] for row in rows], middle, atol=1e-5)
            np.testing.assert_allclose([row["sd_over_seeds"] for row in rows], spread, atol=1e-5)
        assert any("2 seeds: " in words and "of uniform" in words for _, words in page.cells("phase 2 · L1"))


def test_tokens_layers_search_and_one_token_in_all_layers(show):
    record, sample = PAIR["phase 2"][0], PAIR["phase 2"][0].samples[1]
    with show(PAIR) as page:
        page.view("tokens")
        page.choose(sample="1", pool="both", show="b")
        for layer in (0, 2):
            page.frame.fill("#choose-layer", str(layer))
            rows = page.rows()
            assert {row["layer"] for row in rows} == {record.layers[layer]}
            assert [row["token"] for row in rows][:: len(MEMBERS)] == sample.tokens
            weights = np.reshape([row["weight"] for row in rows], (-1, len(MEMBERS)))
            np.testing.assert_allclose(weights, sample.weights[layer], atol=5e-3)
            for t in (0, 3, 5):
                index = page.cells(f"token {t + 1} ")[0][0]
                np.testing.assert_allclose(page.pixels(index), won(sample.weights[layer, t], page), atol=4)
        page.choose(colour="0")
        index = page.cells("token 4 ")[0][0]
        np.testing.assert_allclose(page.pixels(index), shade(sample.weights[2, 3, 0]), atol=4)
        index, words = next((i, w) for i, w in page.cells("token 4") if "return" in w)
        assert "keyword" in words and page.hover(index) == words
        page.click(index)
        assert len(page.cells("phase 2, seed 0 · token 4 · L")) == len(record.layers) * len(MEMBERS)
        means = sample.weights[:, 3].astype(float).mean(0)
        largest = ", ".join(f"{MEMBERS[m]} {100 * means[m]:.0f} %" for m in np.argsort(-means))
        picture = page.saved("SVG").path().read_text()
        assert f">mean: {largest}<" in picture and "token 4 “return” (keyword)<" in picture
        panel = [row for row in page.rows(position=4) if row["layer"] == "L1"]
        np.testing.assert_allclose([row["weight"] for row in panel], sample.weights[0, 3], atol=5e-3)
        page.frame.focus("canvas")
        page.page.keyboard.press("Escape")
        assert not page.cells("phase 2, seed 0 · token 4 · L"), "Escape closes the token"
        page.frame.fill("#choose-query", "RETURN X")
        assert "2 tokens match the search, and some in samples 1, 3." in page.caption()
        page.choose_kinds(0)
        told = json.loads(page.saved("JSON").path().read_text())
        assert told["sample"] == "row 1" and told["kind"] == "keyword"
        assert {row["kind"] for row in told["rows"] if row["counted"]} == {"keyword"}


def test_the_difference_of_two_phases_token_by_token(show):
    first, second = (PAIR[phase][0].samples[1].weights.astype(float) for phase in PAIR)
    with show(PAIR, view="tokens") as page:
        page.choose(sample="1", show="diff", colour="1", pool="both")
        assert "change of the fusion weight of ruby" in page.caption() and "± 0.8 points" in page.caption()
        page.frame.fill("#choose-layer", "1")
        rows = page.rows(member="ruby", layer="L2")
        change = (second - first)[1, :, 1]
        np.testing.assert_allclose([row["weight_difference"] for row in rows], change, atol=9e-3)
        limit = np.abs((second - first)[..., 1]).max()
        for t in (1, 2):
            index = page.cells(f"token {t + 1} ")[0][0]
            expected = shade(0.5 + change[t] / limit / 2, style.DIVERGING)
            np.testing.assert_allclose(page.pixels(index), expected, atol=8)


def test_two_series_and_their_difference_stand_on_the_same_tokens(show):
    first, second = (PAIR[phase][0].samples[1].weights.astype(float) for phase in PAIR)
    with show(PAIR, view="tokens") as page:
        page.choose(sample="1", colour="1", pool="both")
        change = second - first
        limit = np.abs(change[..., 1]).max()
        tracks = page.cells("token 3 ")
        assert [words.split(" · ")[1] for _, words in tracks] == ["A", "B", "B − A"]
        expected = [shade(first[0, 2, 1]), shade(second[0, 2, 1]),
                    shade(0.5 + change[0, 2, 1] / limit / 2, style.DIVERGING)]  # fmt: skip
        for (index, _), colour in zip(tracks, expected, strict=True):
            np.testing.assert_allclose(page.pixels(index), colour, atol=8)
        boxes = page.frame.evaluate("document.querySelector('canvas').drawn.cells.filter(c => c.link === 't2')"
                                    ".map(({x, y, w, id}) => ({x, y, w, id}))")  # fmt: skip
        lines = [box for box in boxes if box["id"].startswith("t2")]
        assert len({box["x"] for box in lines}) == len({box["w"] for box in lines}) == 1, "they stand in one column"
        page.hover(tracks[0][0])
        framed = page.frame.evaluate("[...document.querySelectorAll('.mark')].map(m => parseFloat(m.style.top))")
        assert all(min(abs(box["y"] - top) for top in framed) < 0.01 for box in lines), "and are marked together"
        assert len(framed) == len(lines) + len(tracks) + 1, "with the pictures of all layers and the losses"
        rows = page.rows(member="ruby", position=3)
        assert [row["series"] for row in rows] == ["phase 1, seed 0", "phase 2, seed 0",
                                                   "phase 2, seed 0 − phase 1, seed 0"]  # fmt: skip


def test_several_tokens_are_pinned_and_averaged(show):
    weights = PAIR["phase 2"][0].samples[1].weights.astype(float)
    with show(PAIR, view="tokens") as page:
        page.choose(sample="1", pool="both", show="b")
        place = {t: page.at(page.cells(f"token {t} ")[0][0]) for t in (2, 4, 7)}
        page.frame.click("canvas", position=place[2])
        page.frame.click("canvas", position=page.at(page.cells("token 4 ")[0][0]), modifiers=["Shift"])
        page.frame.click("canvas", position=page.at(page.cells("token 7 ")[0][0]), modifiers=["Control"])
        assert {row["position"] for row in page.rows(pinned=True)} == {2, 3, 4, 7}
        assert "The 4 tokens you pinned are averaged in all layers" in page.caption()
        kinds = [KINDS[kind] for kind in PAIR["phase 2"][0].samples[1].kinds[[1, 2, 3, 6]]]
        assert f"mean of 4 tokens ({kinds[0]}, {kinds[1]}" in page.saved("SVG").path().read_text()
        _, words = page.cells("phase 2, seed 0 · 4 tokens · L3 · ruby")[0]
        assert abs(float(words.split(": ")[1][:-2]) - 100 * weights[2, [1, 2, 3, 6], 1].mean()) < 0.5
        page.choose(show="stack")
        assert len(page.cells("phase 1, seed 0 · 4 tokens · L3 · ruby")) == 1, "what is pinned stays"
        page.frame.click("canvas", position=page.at(page.cells("token 7 ")[0][0]), modifiers=["Control"])
        assert {row["position"] for row in page.rows(pinned=True)} == {2, 3, 4}
        page.frame.focus("canvas")
        page.page.keyboard.press("Escape")
        assert not page.rows(pinned=True)


def test_the_loss_behind_a_token_is_drawn_linked_and_exported(show):
    samples = [PAIR[phase][0].samples[1] for phase in PAIR]
    with show(PAIR, view="tokens") as page:
        page.choose(sample="1", pool="both")
        rows = page.rows(member="ruby", layer="L1", series="phase 2, seed 0")
        np.testing.assert_allclose([row["next_token_loss"] for row in rows], samples[1].losses, rtol=0.02, atol=0.02)
        area = page.frame.evaluate("(({x, y, w, h}) => ({x, y, w, h}))"
                                   "(document.querySelector('canvas').drawn.areas.at(-1))")  # fmt: skip
        t, count = 2, len(samples[0].tokens)
        place = {"x": area["x"] + area["w"] * (t + 0.5) / count + 2, "y": area["y"] + area["h"] - 1}
        page.frame.hover("canvas", position=place)
        words = page.frame.text_content(".tip")
        assert words.startswith("token 3 ") and page.frame.locator(".mark").count() > 3
        losses = [float(part.split()[1]) for part in words.split("next token: ")[1].split(", ")]
        np.testing.assert_allclose(losses, [sample.losses[t] for sample in samples], rtol=0.03, atol=0.02)
        page.choose(sort="loss")
        names = page.frame.eval_on_selector("#choose-sample", "box => [...box.options].map(option => option.text)")
        shown = [float(name.rsplit("(", 1)[1].split()[0]) for name in names]
        expected = sorted((one.losses[:-1].mean() for one in PAIR["phase 2"][0].samples), reverse=True)
        np.testing.assert_allclose(shown, expected, rtol=0.02, atol=0.02)


def test_kinds_are_a_table_and_less_every_kind(show):
    records = PAIR["phase 2"]
    with show(PAIR, view="kinds") as page:
        page.choose(pool="both")
        for kind in ("keyword", "identifier"):
            by_seed = np.array([mean_weights(r, "both", kinds=[kind]).mean(0) for r in records])
            every = np.array([mean_weights(r, "both").mean(0) for r in records])
            page.choose(less="none")
            rows = page.rows(kind=kind)
            np.testing.assert_allclose([row["weight"] for row in rows], by_seed.mean(0), atol=1e-6)
            np.testing.assert_allclose([row["sd_over_seeds"] for row in rows], by_seed.std(0, ddof=1), atol=1e-6)
            assert {row["tokens"] for row in rows} == {records[0].kind_counts[:2, KINDS.index(kind)].sum()}
            half = student_t(0.975, 1) * by_seed.std(0, ddof=1) / np.sqrt(2)
            bounds = [[row[f"{end}_over_seeds"] for row in rows] for end in ("low", "high")]
            expected = np.clip([by_seed.mean(0) - half, by_seed.mean(0) + half], 0, 1)
            np.testing.assert_allclose(bounds, expected, atol=1e-4)
            _, words = page.cells(f"phase 2 · {kind} · ruby")[0]
            written = " to ".join(f"{100 * bound[1]:.1f}" for bound in bounds)
            assert f"95 % over seeds: {written}" in words and f">{written}<" in page.saved("SVG").path().read_text()
            page.choose(less="kinds")
            np.testing.assert_allclose([row["weight"] for row in page.rows(kind=kind)], (by_seed - every).mean(0),
                                       atol=1e-6)  # fmt: skip
        page.choose(less="none", band="1")
        expected = np.mean([mean_weights(r, "both", kinds=["keyword"])[1] for r in records], 0)
        np.testing.assert_allclose([row["weight"] for row in page.rows(kind="keyword")], expected, atol=1e-6)
        page.click(page.cells("phase 2 · keyword")[0][0])
        assert page.frame.text_content("#choose-kinds") == "Kinds: keyword", "a row leads to its layers"


def test_members_are_sorted_and_hidden_and_layers_grouped(show):
    record = large_record(layers=24, tokens=6, members=4)
    with show(record) as page:
        page.open("arrangement")
        page.choose(order="weight", group="4")
        mean = mean_weights(record)
        rows = page.rows()
        groups = list(dict.fromkeys(row["layer"] for row in rows))
        assert groups[-1] == "L1 to L4" and len(groups) == 6, "the first layers are at the bottom"
        order = list(dict.fromkeys(row["member"] for row in rows))
        assert order == [record.members[m] for m in np.argsort(-mean.mean(0))]
        shown = [row["weight"] for row in rows if row["layer"] == "L1 to L4"]
        np.testing.assert_allclose(shown, mean[:4].mean(0)[np.argsort(-mean.mean(0))], atol=1e-6)
        page.choose(group="alike", order="fused")
        rows = page.rows()
        assert len({row["layer"] for row in rows}) == 8
        page.frame.uncheck("#choose-member-1")
        assert {row["member"] for row in page.rows()} == {"member 0", "member 2", "member 3"}
        page.choose(order="alike")
        assert {row["member"] for row in page.rows()} == {"member 0", "member 2", "member 3"}


@pytest.mark.parametrize("width, beside", [(1400, True), (800, False)])
def test_the_choices_stand_beside_a_wide_picture_and_above_a_narrow_one(show, width, beside):
    with show(PAIR, width=width) as page:
        controls, stage = (page.frame.locator(where).bounding_box() for where in (".controls", ".stage"))
        is_left = controls["x"] + controls["width"] <= stage["x"]
        assert is_left == beside and (controls["y"] + controls["height"] <= stage["y"]) != beside
        assert page.frame.is_visible("#choose-kind-0") == page.frame.is_visible("#choose-member-0") == beside


def test_members_are_dragged_or_moved_by_keys_to_the_readers_own_order(show):
    def shown(page):
        return [int(name[-1]) for name in dict.fromkeys(row["member"] for row in page.rows(layer="L1"))]

    with show(large_record(layers=2, tokens=6, members=4)) as page:
        page.open("arrangement")
        line = "label:has(#choose-member-%d)"
        page.frame.drag_and_drop(line % 3, line % 1, target_position={"x": 20, "y": 2})
        assert shown(page) == [0, 3, 1, 2] and page.frame.input_value("#choose-order") == "mine"
        page.frame.focus("#choose-member-0")
        page.page.keyboard.press("Alt+ArrowDown")
        page.page.keyboard.press("Alt+ArrowDown")
        assert shown(page) == [3, 1, 0, 2]
        page.frame.focus("#choose-member-0")
        page.page.keyboard.press("Alt+ArrowUp")
        assert shown(page) == [3, 0, 1, 2]
        page.frame.wait_for_function("location.hash.includes('order=mine&mine=3%2C0%2C1%2C2')")
        np.testing.assert_allclose(
            [row["weight"] for row in page.rows(layer="L1")],
            mean_weights(large_record(layers=2, tokens=6, members=4))[0][[3, 0, 1, 2]], atol=1e-6)  # fmt: skip
    with show(large_record(layers=2, tokens=6, members=4), at="order=mine&mine=2,2,0") as page:
        assert shown(page) == [0, 1, 2, 3], "an order that names a member twice is none"


def test_layers_are_hidden_one_by_one_alone_and_in_groups(show):
    record = large_record(layers=12, tokens=6, members=3)
    mean = mean_weights(record)
    with show({"phase 1": record, "phase 2": record}, view="layers") as page:
        page.open("arrangement")
        for hidden in (1, 10):
            page.frame.uncheck(f"#choose-layer-{hidden}")
        left = [layer for layer in range(12) if layer not in (1, 10)]
        rows = page.rows()
        assert list(dict.fromkeys(row["layer"] for row in rows)) == [f"L{layer + 1}" for layer in left[::-1]]
        of_third = [row["weight"] for row in rows if row["layer"] == "L3"]
        np.testing.assert_allclose(of_third, mean[2], atol=1e-6, err_msg="a row keeps its own numbers")
        page.choose(group="4")
        rows = page.rows()
        assert list(dict.fromkeys(row["layer"] for row in rows)) == [
            "L9 to L12 (3 layers)", "L5 to L8", "L1 to L4 (3 layers)"]  # fmt: skip
        first = [row["weight"] for row in rows if row["layer"].startswith("L1 ")]
        np.testing.assert_allclose(first, mean[[0, 2, 3]].mean(0), atol=1e-6, err_msg="hidden layers are in no mean")
        page.choose(group="alike")
        rows = page.rows()
        assert len({row["layer"] for row in rows}) == 8
        page.choose(group="1")
        page.view("kinds")
        rows = page.rows(kind="every kind")
        np.testing.assert_allclose([row["weight"] for row in rows], mean[left].mean(0), atol=1e-6)
        assert "mean of 10 layers" in page.caption()
        page.view("layers")
        for hidden in left:
            page.frame.uncheck(f"#choose-layer-{hidden}")
        assert len({row["layer"] for row in page.rows()}) == 12, "there is always something to see"


def test_series_are_chips_that_show_and_hide(show):
    with show(PAIR, view="all") as page:
        assert {row["series"] for row in page.rows()} == set(PAIR)
        page.frame.click("#chip-on-0")
        assert {row["series"] for row in page.rows()} == {"phase 2"}
        assert page.frame.get_attribute("#chip-on-0", "aria-pressed") == "false"
        page.view("depth")
        assert {row["series"] for row in page.rows()} == {"phase 2"}
        page.frame.click("#chip-on-1")
        assert {row["series"] for row in page.rows()} == set(PAIR), "there is always something to see"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A fusion run of two phases with a look at its attention at three steps of each."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 3, 2)).round(4)  # (phases, looks, L, A)
    run = tmp_path / "runs/fusion/lua-made"
    for phase, of_phase in zip(("phase1", "phase2"), weights, strict=True):
        log = [{"step": 10 * i, "eval_loss": 1 - 0.1 * i, "attention": {"weights": one.tolist()}}
               for i, one in enumerate(of_phase)]  # fmt: skip
        TrainingResult(log, 20, 20, 1.0, 1.0, 1, 1.0).write(run / phase / "training.json")
    members = {name: f"runs/adapter/{name}" for name in MEMBERS}
    made_runs.finish(run, "fusion", {"method": "advfusion", "members": members, "target": "lua", "seed": 3})
    return run, weights.reshape(6, 2, 3)


def test_attention_is_followed_through_training(show, trained):
    run, weights = trained
    with show(PAIR, view="training", training={"advfusion_zero": [run]}) as page:
        assert "advfusion_zero, seed 3" in page.caption() and "step 40 (phase 2)" in page.caption()
        for look in (0, 2, 3, 5):
            page.frame.fill("#choose-look", str(look))
            rows = page.rows()
            assert {(row["step"], row["phase"]) for row in rows} == {
                (10 * look if look < 3 else 10 * (look - 1), f"phase {1 + look // 3}")}  # fmt: skip
            shown = np.reshape([row["weight"] for row in rows], (2, 3))[::-1]
            np.testing.assert_allclose(shown, weights[look], atol=1e-3)
        page.click(page.cells("phase 1, step 10")[0][0])
        assert page.frame.input_value("#choose-look") == "1", "a point of the loss is a look"
        page.frame.fill("#choose-look", "4")
        page.frame.click("#choose-play")
        page.frame.wait_for_selector("#choose-play:text-is('Pause')")
        page.frame.wait_for_selector("#choose-play:text-is('Play')")
        assert page.frame.input_value("#choose-look") == "5", "it plays to the end"
    with show(PAIR) as page:
        assert page.frame.locator("#tab-training").count() == 0, "without a training there is no such view"


def test_keys_step_through_samples_layers_and_series(show):
    with show(PAIR, view="tokens") as page:
        page.frame.focus("canvas")
        for key in ("j", "]", "]", "[", "a"):
            page.page.keyboard.press(key)
        assert page.frame.input_value("#choose-sample") == "1" and page.frame.input_value("#choose-layer") == "1"
        assert page.frame.get_attribute("#chip-a-1", "aria-pressed") == "true"
        for opened in (lambda: page.page.keyboard.press("?"), lambda: page.frame.click("header .help")):
            opened()
            assert page.frame.is_visible("dialog.keys") and "next or previous sample" in page.frame.text_content(
                ".keys"
            )
            page.page.keyboard.press("j")
            page.page.keyboard.press("Escape")
            assert not page.frame.is_visible("dialog.keys")
            assert page.frame.input_value("#choose-sample") == "1", "keys act on the page only"
        page.frame.focus("#choose-query")
        page.page.keyboard.type("j")
        assert page.frame.input_value("#choose-sample") == "1", "a letter in a field is a letter"


def test_numbers_are_copied_as_tables_and_saved_as_a_figure_for_paper(show):
    record = PAIR["phase 2"][0]
    with show({"a_b": PAIR["phase 2"]}) as page:
        page.page.context.grant_permissions(["clipboard-read"])

        def copied(kind):
            page.frame.evaluate("""() => document.addEventListener('copy', () => {
                window.copied = document.activeElement.value; }, {once: true})""")
            page.frame.select_option(".more", kind)
            return page.frame.evaluate("window.copied")

        values = [f"{100 * v:.1f}" for v in mean_and_sd(PAIR["phase 2"])[0][2]]
        assert f"| L3 | {' | '.join(values)} |" in copied("Markdown") and "**a\\_b**" in copied("Markdown")
        tex = copied("LaTeX")
        assert f"L3 & {' & '.join(values)} \\\\" in tex and tex.count("\\midrule") == 1
        assert page.frame.locator(".more option[value=Python]").count() == 0, "there is no file to open"
        for view in ("layers", "compare", "all", "depth", "kinds", "tokens"):
            page.view(view)
            with page.page.expect_download() as download:
                page.frame.select_option(".more", "PDF 3.3 in")
            data = download.value.path().read_bytes()
            assert data.startswith(b"%PDF-1.4") and b"/MediaBox [0 0 237.6 " in data
            start = int(data.split(b"startxref\n")[1].split()[0])
            places = [int(line.split()[0]) for line in data[start:].split(b"\n")[3:] if line.endswith(b"n ")]
            assert [data[at:].split()[0] for at in places] == [str(i + 1).encode() for i in range(len(places))], view
            assert b"(lua) Tj" in data or b"lua" in data
        assert record.members == list(MEMBERS)


def test_the_line_of_python_opens_the_view(show, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, phases in {"one": ("phase1", "phase2"), 'two "quoted"': ("phase2",)}.items():
        for phase in phases:
            title = phase.replace("phase", "phase ")
            made_record(phase=title).save(tmp_path / "runs" / name / f"records/s0-{phase}.npz")
    runs = {'a "b"\n\u2028': "runs/one", "c": [tmp_path / 'runs/two "quoted"']}
    with show(runs, view="all", tokens="both", title="\\ it's") as page:
        page.view("tokens")
        page.choose(sample="1", colour="2")
        page.frame.evaluate("""() => document.addEventListener('copy', () => {
            window.copied = document.activeElement.value; }, {once: true})""")
        page.frame.select_option(".more", "Python")
        line = page.frame.evaluate("window.copied")
        series = page.frame.evaluate("JSON.parse(document.getElementById('data').textContent).series.map(s => s.label)")
        assert line.startswith("import studykit; studykit.explore(") and str(tmp_path) not in line
        opened = eval(line.removeprefix("import studykit; "), {"studykit": studykit})
    file = opened.save(tmp_path / "again.html")
    again = page.page.context.browser.new_page()
    again.goto(file.as_uri())
    again.wait_for_selector("#tab-tokens[aria-selected=true]")
    assert [again.input_value(f"#choose-{name}") for name in ("sample", "colour", "pool")] == ["1", "2", "both"]
    assert (opened.title, [one.label for one in opened.series]) == ("\\ it's", series)
    again.close()


def test_samples_are_named_by_their_words_and_sorted(show):
    texts = [["def", " f", " one", "=", "1"], ["def", " f", " two", "=", "2"], ["def", " f", " six", "=", "6"]]
    first, second = made_record(texts, phase="phase 1", mask="exclude"), made_record(texts)
    with show({"phase 1": first, "phase 2": second}, view="tokens") as page:
        page.choose(pool="both")

        def names():
            return page.frame.locator("#choose-sample option").all_text_contents()

        assert names() == ["1: …one=1", "2: …two=2", "3: …six=6"]
        for sort, values in (
            ("share", [sample.weights[:, :-1, -1].astype(float).mean() for sample in second.samples]),
            ("change", [np.abs((b.weights.astype(float) - a.weights)[:, :-1].mean(1)).sum(-1).mean() / 2
                        for a, b in zip(first.samples, second.samples, strict=True)]),
        ):  # fmt: skip
            page.choose(sort=sort)
            assert [name[0] for name in names()] == [str(i + 1) for i in np.argsort(values)[::-1]]
            given = [float(name.split("(")[1].split(" %")[0]) for name in names()]
            np.testing.assert_allclose(given, 100 * np.sort(values)[::-1], atol=0.6)


def test_a_link_leads_to_a_view(show, browser, tmp_path):
    view = "view=tokens&sample=1&layer=2&colour=1&show=a&pinned=2,3"
    with show(PAIR, at="view=nonsense&a=99&layer=-1&seed=7&pinned=x") as page:
        assert page.frame.get_attribute("#tab-layers", "aria-selected") == "true", "what is no choice changes nothing"
    with show(PAIR, at=view) as page:
        assert page.frame.input_value("#choose-layer") == "2" and page.frame.input_value("#choose-show") == "a"
        assert {row["position"] for row in page.rows(pinned=True)} == {3, 4}
        page.page.goto(f"{page.address}#explorer-1:view=depth&pool=both")
        page.frame.wait_for_selector("#tab-depth[aria-selected=true]")
        page.choose(pool="prompt")
        page.page.wait_for_url(f"{page.address}#explorer-1:view=depth&pool=prompt")
        page.page.reload()
        page.frame = next(frame for frame in page.page.frames if frame.parent_frame)
        page.frame.wait_for_selector("#tab-depth[aria-selected=true]")
        assert page.frame.input_value("#choose-pool") == "prompt", "a report opened anew shows the view in its address"
    file = studykit.explore(PAIR).save(tmp_path / "own.html")
    own = browser.new_page()
    own.goto(f"{file.as_uri()}#{view}")
    own.wait_for_selector("html[data-ready]")
    assert own.input_value("#choose-layer") == "2" and "2 tokens you pinned" in own.text_content(".caption")
    own.select_option("#choose-pool", "both")
    own.wait_for_url(lambda address: "pool=both" in address)
    own.click(".link")
    assert own.text_content(".tip") == f"Copied: {own.url}"
    own.close()


def test_a_link_from_another_page_leads_to_a_view_in_a_report(browser, tmp_path):
    explorers = [studykit.explore(PAIR, view="all"), studykit.explore(PAIR)]
    between = Markup("<p style='height: 3000px'>text</p>")
    content = between.join([Markup(), *(Markup(explorer.frame) for explorer in explorers)])
    (tmp_path / "06_compare.html").write_text(documents.document("Report", content, "mark"), encoding="utf-8")
    link = Markup('<a href="06_compare.html#explorer-{}:view={}">view</a>')
    for n, view in ((1, "all"), (2, "depth"), (1, "tokens")):
        (tmp_path / "index.html").write_text(link.format(n, view), encoding="utf-8")
        page = browser.new_page()
        page.goto((tmp_path / "index.html").as_uri())
        page.click("a")
        frame = page.locator("iframe").nth(n - 1)
        page.frame_locator("iframe").nth(n - 1).locator(f"#tab-{view}[aria-selected=true]").wait_for()
        page.wait_for_function(f"Math.abs(document.querySelectorAll('iframe')[{n - 1}].getBoundingClientRect().y) < 50")
        assert frame.is_visible()
        page.close()


def test_a_difference_of_tokens_is_of_one_seed(show):
    records = {seed: made_record(seed=seed) for seed in (0, 1, 2)}
    with show({"a": [records[0], records[1]], "b": [records[1], records[2]]}, view="tokens") as page:
        page.choose(show="diff", colour="0")
        assert "b, seed 1 − a, seed 1" in page.caption()
        assert {row["weight_difference"] for row in page.rows()} == {0}


def test_one_member_that_takes_part_has_a_depth_too(show):
    with show(made_record(members=["go", "lua"], mask="exclude", phase="phase 1"), view="depth") as page:
        assert {row["value"] for row in page.rows()} == {0}
    with show(made_record(members=["lua"]), view="tokens") as page:
        assert page.pixels(page.cells("token 5 ")[0][0]).max() > 0


def test_a_table_has_every_column_that_a_row_has(show):
    shallow, deep = made_record(members=["go", "lua"], layers=2), made_record(layers=4)
    with show({"shallow": shallow, "deep": deep}, view="all") as page:
        page.choose(by="member")
        with page.saved("CSV").path().open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {"weight", "checkpoints", "pool", "samples"} <= rows[0].keys()
        assert [row["checkpoints"] for row in rows if row["series"] == "deep"][4:] == ["lua-made-s0"] * 4 * 3


def test_shares_that_are_no_numbers_are_told_at_once(show):
    broken = made_record()
    broken.kind_share_sums[0] = np.nan
    with show(broken) as page:
        assert "These weights cannot be right" in page.frame.text_content(".check")


def test_paper_gets_the_whole_view_in_ink(browser, tmp_path):
    file = studykit.explore(made_record([[f" word{i}" for i in range(3000)]]), view="tokens").save(tmp_path / "x.html")
    page = browser.new_page(viewport={"width": 900, "height": 500}, color_scheme="dark")
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(100)  # what it opens resizes the stage, which asks for another drawing
    assert page.evaluate("document.querySelector('canvas').clientHeight") > 2000 and page.get_attribute(
        "html", "data-theme") == "light"  # fmt: skip
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.get_attribute("html", "data-theme") == "auto"
    page.close()


def test_the_picture_of_all_layers_follows_what_is_chosen(show):
    samples = PAIR["phase 2"][0].samples
    with show(PAIR, view="tokens") as page:
        page.choose(pool="both", show="b")
        for sample in (1, 0):
            page.choose(sample=str(sample), colour="winner")
            weights = samples[sample].weights
            index = page.cells("L2 · token 3 ")[0][0]
            np.testing.assert_allclose(page.pixels(index), won(weights[1, 2], page), atol=4)
            page.choose(colour="2")
            np.testing.assert_allclose(page.pixels(index), shade(weights[1, 2, 2]), atol=4)
        page.click(index)
        assert page.frame.input_value("#choose-layer") == "1", "a click chooses layer and token"


def test_the_edges_of_a_large_picture_are_inside_it(show):
    record = large_record(layers=12, tokens=600, members=6)
    with show(record, view="tokens") as page:
        first = "document.querySelector('canvas').drawn.areas[0]"
        area = page.frame.evaluate(f"(({{x, y, w, h}}) => ({{x, y, w, h}}))({first})")
        corner = {"x": area["x"] + area["w"] + 2, "y": area["y"] + area["h"] + 4}
        page.frame.hover("canvas", position=corner)
        assert page.frame.text_content(".tip") == "L1 · token 600 “·name65”"
        page.frame.click("canvas", position=corner)
        assert page.frame.input_value("#choose-layer") == "0" and page.rows(position=600)[0]["layer"] == "L1"


def test_search_goes_to_its_first_match(show):
    tokens = [f" word{i}" for i in range(900)] + [" needle", "İ", " after"]
    with show(made_record([tokens]), view="tokens") as page:
        page.frame.fill("#choose-query", "NEEDLE")
        assert page.frame.evaluate("document.querySelector('.stage').scrollTop") > 200
        page.frame.fill("#choose-query", "after")
        assert "1 token match" in page.caption()
        page.frame.fill("#choose-query", "(")
        assert "0 tokens match" in page.caption(), "what is typed is text, not a pattern"


def test_a_cell_leads_to_its_tokens_and_keys_reach_every_cell(show):
    with show(PAIR) as page:
        page.frame.focus("canvas")
        said = []
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            page.page.keyboard.press(key)
            said.append(page.frame.text_content(".tip"))
        assert [words.split(" · ")[1] for words in said] == ["L3", "L3", "L2"] and "ruby" in said[2]
        page.page.keyboard.press("Enter")
        assert page.frame.get_attribute("#tab-tokens", "aria-selected") == "true"
        assert page.frame.input_value("#choose-layer") == "1" and page.frame.input_value("#choose-colour") == "1"
        page.page.keyboard.press("ArrowRight")
        page.page.keyboard.press("ArrowRight")
        assert page.frame.text_content(".spoken").startswith("token 2 "), "keys go on with the text"
        page.page.keyboard.press("Enter")
        page.page.keyboard.press("ArrowRight")
        assert page.frame.text_content(".spoken").startswith("token 3 "), "and from where they were"
        page.frame.focus("#tab-tokens")
        page.page.keyboard.press("ArrowRight")
        assert page.frame.get_attribute("#tab-layers", "aria-selected") == "true"
        page.frame.click("footer details:has(.numbers) summary")
        page.frame.wait_for_selector(".numbers tbody tr")
        assert page.frame.locator(".numbers tbody tr").count() == len(MEMBERS) * 3
        nameless = (
            "[...document.querySelectorAll('select, input')].filter(e => !e.labels.length && !e.ariaLabel).length"
        )
        assert page.frame.evaluate(nameless) == 0
        assert page.frame.get_attribute("canvas", "aria-label").startswith("Layers. Mean fusion weight")


@pytest.mark.parametrize("view", ["layers", "compare", "all", "depth", "kinds", "tokens"])
def test_pictures_are_whole(show, view):
    with show(PAIR) as page:
        page.view(view)
        svg = minidom.parse(str(page.saved("SVG").path()))
        words = " ".join(node.firstChild.data for node in svg.getElementsByTagName("text") if node.firstChild)
        assert "phase 2" in words and "padding excluded" in words and svg.documentElement.getAttribute("viewBox")
        assert not svg.getElementsByTagName("script")
        assert page.saved("PNG").path().read_bytes()[:4] == b"\x89PNG"


def test_text_of_data_and_models_never_runs(show):
    evil = HOSTILE[0]
    names = [HOSTILE[1], HOSTILE[2], evil]
    record = made_record([HOSTILE, CODE], members=names, checkpoint=evil)
    with show({evil: record, HOSTILE[1]: record}, title=evil) as page:
        for view in ("layers", "compare", "all", "depth", "kinds", "tokens"):
            page.view(view)
            if view == "tokens":
                page.choose(show="b")  # the text of one series is short enough to be in sight
            for index, _ in page.cells()[-3:]:
                page.hover(index)
            svg = page.saved("SVG").path().read_text()
            assert "<script" not in svg and "<img" not in svg and minidom.parseString(svg)
        page.frame.click("footer details:has(.numbers) summary")
        assert page.frame.evaluate("document.body.dataset.pwned") is None
        assert page.page.evaluate("document.body.dataset.pwned") is None
        assert page.frame.locator("img, iframe, object").count() == 0 and page.frame.locator("script").count() == 2
        assert page.frame.text_content("h1") == evil
        field = next(line for line in page.saved("CSV").path().read_text().split("\n") if "=1+1" in line)
        assert "'=1+1" in field, "a spreadsheet must not compute a token"
        ran = page.frame.evaluate("""() => { const s = document.createElement('script');
            s.textContent = 'document.body.dataset.pwned = 2'; document.body.append(s);
            return document.body.dataset.pwned || 'no'; }""")
        assert ran == "no", "the policy in the frame lets no other script run"
        assert ["Content Security Policy" in text for text in page.messages] == [True, True], (
            "the page's and the frame's"
        )
        page.messages.clear()


def test_weights_that_do_not_add_up_are_told_at_once(show):
    with show(made_record(spoilt=1.02)) as page:
        assert page.frame.get_attribute(".check", "role") == "alert"
        assert "differ from a sum of 1 by 0.020" in page.frame.text_content(".check")
    broken = made_record(mask="exclude")
    broken.kind_weight_sums[..., 2] += 0.01
    with show(broken) as page:
        assert "These weights cannot be right" in page.frame.text_content(".check")


def test_without_kept_samples_means_are_there_and_tokens_say_why_not(show):
    with show(made_record(keep=0)) as page:
        np.testing.assert_allclose(matrix(page.rows(), made_record()), mean_weights(made_record()), atol=1e-6)
        page.view("tokens")
        assert page.caption() == "No sample of phase 2 is kept token by token."


@pytest.mark.parametrize("width, height, scheme", [(400, 800, "dark"), (400, 800, "light"), (1920, 1080, "dark")])
def test_phone_projector_and_dark(show, tmp_path, width, height, scheme):
    with show(PAIR, width, height, scheme) as page:
        for view in ("layers", "compare", "all", "depth", "kinds", "tokens"):
            page.view(view)
            assert page.frame.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
            assert page.frame.evaluate("document.querySelector('.stage').clientHeight") >= 160, "room to look at"
            page.page.screenshot(path=tmp_path / f"{view}-{width}-{scheme}.png")
        size = page.frame.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")
        assert size >= (18 if width == 1920 else 14)
        assert contrast(page.frame) >= 4.5
        page.frame.click(".theme")
        assert page.frame.get_attribute("html", "data-theme") == "dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lab", ["light", "dark"])
def test_in_jupyterlab_the_page_has_its_theme_and_not_the_systems(browser, tmp_path, scheme, lab):
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
    output = studykit.explore(PAIR)._repr_mimebundle_()["text/html"]
    file = tmp_path / "lab.html"
    file.write_text(f'<body data-jp-theme-light="{str(lab == "light").lower()}">{output}</body>', encoding="utf-8")
    page.goto(file.as_uri())
    frame = page.wait_for_selector("iframe")
    frame.content_frame().wait_for_selector("html[data-ready]")
    image = Image.open(io.BytesIO(frame.screenshot())).convert("L")
    assert (np.median(image) > 200) == (lab == "light") and (np.median(image) < 60) == (lab == "dark")
    page.close()


def contrast(frame) -> float:
    """Of the smallest text to its paper, as WCAG counts it."""
    colours = frame.evaluate("""() => { const s = getComputedStyle(document.documentElement);
        return ['--soft', '--paper'].map(n => s.getPropertyValue(n).trim()); }""")
    light = []
    for colour in colours:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


class Work:
    """Calls of functions of a page's script and of its canvas, counted by the browser: unlike times, they do not
    depend on what else the machine does."""

    CANVAS = """for (const name of ["fillRect", "strokeRect", "fillText", "measureText", "drawImage", "putImageData"]) {
        const inner = CanvasRenderingContext2D.prototype[name];
        CanvasRenderingContext2D.prototype[name] = function (...given) {
            window.painted = {...window.painted, [name]: (window.painted?.[name] ?? 0) + 1};
            return inner.apply(this, given); }; }"""

    def __init__(self, page, file):
        self.page = page
        page.add_init_script(self.CANVAS)
        self.session = page.context.new_cdp_session(page)
        self.session.send("Profiler.enable")
        self.session.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": False})
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=60_000)

    def since(self, act: str = "") -> tuple[int, dict[str, int]]:
        """Runs a script and the two frames after it; returns all calls since the last time, and those of the canvas."""
        self.page.evaluate(f"""async () => {{ {act};
            for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame); }}""")
        painted = self.page.evaluate("() => { const all = window.painted ?? {}; window.painted = {}; return all; }")
        scripts = self.session.send("Profiler.takePreciseCoverage")["result"]
        calls = sum(of["ranges"][0]["count"] for script in scripts for of in script["functions"]
                    if script["url"] == self.page.url.split("#")[0])  # fmt: skip
        return calls, painted


def test_a_large_model_opens_at_once_and_stays_quick(browser, tmp_path):
    layers, tokens = 48, 4096
    record = large_record(layers=layers, tokens=tokens, members=8)
    file = studykit.explore({"phase 1": record, "phase 2": record}, view="layers").save(tmp_path / "large.html")
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    work = Work(context.new_page(), file)
    opened, painted = work.since()
    cells = layers * 8
    assert "putImageData" not in painted and painted["fillRect"] < 3 * cells and opened < 300 * cells, (
        "no token is read before it is shown")  # fmt: skip
    work.page.click("#tab-tokens")
    work.page.select_option("#choose-pool", "both")
    whole, painted = work.since()
    assert whole > layers * tokens and painted["putImageData"] == 3, "A, B and their difference, in all layers"
    slider = "const slider = document.getElementById('choose-layer'); slider.value = {}; " \
             "slider.dispatchEvent(new Event('input'))"  # fmt: skip
    for layer in (5, 17, 40):
        moved, painted = work.since(slider.format(layer))
        assert "putImageData" not in painted, "the pictures of all layers stay"
        assert moved < 80 * tokens and moved < whole / 20, (moved, whole)
        assert painted["fillText"] < tokens and painted["measureText"] < tokens / 8, "what is in sight, in known widths"
    hovered, painted = (
        work.since("""const canvas = document.querySelector('canvas'), box = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + 160, clientY: box.y + 160}))""")
    )
    assert not painted and hovered < 8 * tokens, (painted, hovered)
    scrolled, painted = work.since("document.querySelector('.stage').scrollTop = 2000")
    assert "putImageData" not in painted and scrolled < 80 * tokens, (painted, scrolled)
    took = work.page.evaluate(f"() => {{ const start = performance.now(); {slider.format(20)}; "
                              "return performance.now() - start; }")  # fmt: skip
    print(f"2 x {layers} layers, {tokens} tokens, 8 members: another layer in {took:.0f} ms and {moved} calls of "
          f"functions, all pictures {whole}, hover {hovered}, scroll {scrolled}, opening {opened}")  # fmt: skip
    context.close()
    with_frame = Opened(browser.new_page(), studykit.explore({"phase 1": record, "phase 2": record}, view="tokens"),
                        tmp_path / "page.html")  # fmt: skip
    with_frame.choose(pool="both")
    assert with_frame.rows(position=4096)[0]["token"] == " name1", "both phases can be read token by token"
    with_frame.page.close()
