"""The explorer as a reader uses it, in chromium: every view, filters, hover, keys, export; nothing loads, nothing runs.

Pages are shown as a notebook shows them, in the sandboxed frame of a page that itself allows nothing from a network.
"""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from xml.dom import minidom

import numpy as np
import pytest

import studykit
from studykit import attention, reports
from tests.made_records import CODE, HOSTILE, MEMBERS, large_record, made_record

PAIR = {"phase 1": [made_record(phase="phase 1", mask="exclude", seed=seed) for seed in (0, 1)],
        "phase 2": [made_record(seed=seed) for seed in (0, 1)]}  # fmt: skip


class Opened:
    """An explorer in a page: its frame, what was asked of the network, what was said on the console."""

    def __init__(self, page, explorer, file):
        self.page, self.asked, self.said = page, [], []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        file.write_text(reports.document("Report", explorer.frame, "mark"), encoding="utf-8")
        page.goto(file.as_uri())
        self.address = file.as_uri()
        self.frame = next(frame for frame in page.frames if frame.parent_frame)
        self.frame.wait_for_selector("html[data-ready]", timeout=20_000)

    def view(self, name):
        self.frame.click(f"#tab-{name}")

    def choose(self, **choices):
        for name, value in choices.items():
            self.frame.select_option(f"#choose-{name}", value)

    def cells(self, words=""):
        """(index, what is said) of the cells whose words begin so."""
        said = self.frame.evaluate("document.querySelector('canvas').drawn.cells.map(c => c.say)")
        return [(i, text) for i, text in enumerate(said) if text.startswith(words)]

    def at(self, index):
        """Where the middle of a cell is, in the frame's canvas."""
        cell = self.frame.evaluate(f"(({{x, y, w, h}}) => ({{x, y, w, h}}))"
                                   f"(document.querySelector('canvas').drawn.cells[{index}])")  # fmt: skip
        return {"x": cell["x"] + cell["w"] / 2 + 2, "y": cell["y"] + cell["h"] / 2 + 2}

    def hover(self, index):
        self.frame.hover("canvas", position=self.at(index))
        return self.frame.text_content(".tip")

    def click(self, index):
        self.frame.click("canvas", position=self.at(index))

    def caption(self):
        return self.frame.text_content(".caption")

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
    def opened(what, width=1100, height=900, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        shown = Opened(context.new_page(), studykit.explore(what, **options), tmp_path / "page.html")
        yield shown
        assert shown.asked == [shown.address] or set(shown.asked) <= {shown.address, "about:srcdoc"}, "nothing loads"
        assert shown.said == []
        context.close()

    return opened


def matrix(rows, record):
    """Exported rows of one series as an array (L, A)."""
    values = np.full((len(record.layers), len(record.members)), np.nan)
    for row in rows:
        values[record.layers.index(row["layer"]), record.members.index(row["member"])] = row["weight"]
    return values


def test_the_heatmap_says_its_numbers_and_what_they_stand_on(show):
    with show(PAIR) as page:
        assert len(page.cells("phase 2 · L")) == 9, "the last phase comes first"
        page.choose(b="0")
        record = PAIR["phase 1"][0]
        assert len(page.cells("phase 1 · L")) == len(record.layers) * len(MEMBERS)
        index, words = page.cells("phase 1 · L2 · ruby")[0]
        mean = np.mean([attention.mean(r)[1, 1] for r in PAIR["phase 1"]])
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
        np.testing.assert_allclose(values, attention.across(PAIR["phase 2"])[0], atol=1e-6)
        spread = [row["sd_over_seeds"] for row in page.rows(layer="L1")]
        np.testing.assert_allclose(spread, attention.across(PAIR["phase 2"])[1][0], atol=1e-6)
        page.choose(seed="1")
        for pool in attention.POOLS:
            page.choose(pool=pool)
            np.testing.assert_allclose(matrix(page.rows(), record), attention.mean(record, pool), atol=1e-6)
        for kind, name in ((0, "keyword"), (1, "identifier"), (3, "comment")):
            page.choose(kind=str(kind))
            expected = attention.mean(record, "both", kinds=[name])
            np.testing.assert_allclose(matrix(page.rows(), record), expected, atol=1e-6)
            assert f"of kind {name}" in page.caption()
        page.choose(kind="-1", sample="2", pool="completion")
        expected = attention.sample_means(record)[2]
        np.testing.assert_allclose(matrix(page.rows(), record), expected, atol=5e-3)
        page.choose(sample="-1", quantity="share")
        shares = [row["share"] for row in page.rows(layer="L1")]
        np.testing.assert_allclose(shares, attention.mean(record, weighted=True)[0], atol=1e-6)
        page.choose(quantity="weight")
        with page.saved("CSV").path().open(newline="") as file:
            rows = [row | {"weight": float(row["weight"])} for row in csv.DictReader(file)]
        np.testing.assert_allclose(matrix(rows, record), attention.mean(record), atol=1e-6)


def test_phases_are_compared_on_the_same_samples(show):
    with show(PAIR) as page:
        page.view("compare")
        record = PAIR["phase 1"][0]
        means = [np.mean([attention.mean(r) for r in PAIR[phase]], axis=0) for phase in PAIR]
        np.testing.assert_allclose(matrix(page.rows(series="difference"), record), means[1] - means[0], atol=1e-6)
        assert "The same samples in both" in page.caption()
    other = {"lua": made_record(), "go": made_record([CODE], members=["python", "go"])}
    with show(other) as page:
        page.view("compare")
        assert "NOT the same" in page.caption() and "there is no difference" in page.caption()


def test_small_multiples_by_run_and_by_member(show):
    with show({"lua": made_record(), "go": made_record(members=["python", "ruby", "go"])}) as page:
        page.view("all")
        assert len(page.rows(target=True)) == 2 * 3 and len(page.cells("go · L1 · go (target)")) == 1
        page.choose(by="member")
        assert [len(page.cells(f"{name} · ")) for name in ("python", "go")] == [6, 6]
        assert {row["weight"] for row in page.rows(member="go", series="lua")} == {None}, "no such member there"


def test_depth_has_entropy_target_share_and_the_spread_of_seeds(show):
    with show(PAIR, view="depth") as page:
        records = PAIR["phase 2"]
        for quantity, of in (("target_weight", attention.target_share), ("entropy_bits", attention.entropy)):
            rows = page.rows(series="phase 2", quantity=quantity)
            middle, spread = attention.across(records, of)
            np.testing.assert_allclose([row["value"] for row in rows], middle, atol=1e-5)
            np.testing.assert_allclose([row["sd_over_seeds"] for row in rows], spread, atol=1e-5)
        assert any("2 seeds: " in words and "of uniform" in words for _, words in page.cells("phase 2 · L1"))


def test_tokens_layers_search_and_one_token_in_all_layers(show):
    record, sample = PAIR["phase 2"][0], PAIR["phase 2"][0].samples[1]
    with show(PAIR) as page:
        page.view("tokens")
        page.choose(sample="1", pool="both")
        for layer in (0, 2):
            page.frame.fill("#choose-layer", str(layer))
            rows = page.rows()
            assert {row["layer"] for row in rows} == {record.layers[layer]}
            assert [row["token"] for row in rows][:: len(MEMBERS)] == sample.tokens
            weights = np.reshape([row["weight"] for row in rows], (-1, len(MEMBERS)))
            np.testing.assert_allclose(weights, sample.weights[layer], atol=5e-3)
        index, words = next((i, w) for i, w in page.cells("token 4") if "return" in w)
        assert "keyword" in words and page.hover(index) == words
        page.click(index)
        assert len(page.cells("phase 2, seed 0 · token 4 · L")) == len(record.layers) * len(MEMBERS)
        page.frame.fill("#choose-query", "RETURN X")
        assert "2 tokens match the search" in page.caption()
        page.choose(show="diff", colour="1")
        assert "change of the fusion weight of ruby" in page.caption()


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
        page.frame.focus("#tab-tokens")
        page.page.keyboard.press("ArrowRight")
        assert page.frame.get_attribute("#tab-layers", "aria-selected") == "true"
        page.frame.click("summary")
        page.frame.wait_for_selector(".numbers tbody tr")
        assert page.frame.locator(".numbers tbody tr").count() == len(MEMBERS) * 3
        nameless = "[...document.querySelectorAll('select, input')].filter(e => !e.labels.length).length"
        assert page.frame.evaluate(nameless) == 0
        assert page.frame.get_attribute("canvas", "aria-label").startswith("Layers. Mean fusion weight")


@pytest.mark.parametrize("view", ["layers", "compare", "all", "depth", "tokens"])
def test_pictures_are_whole(show, view):
    with show(PAIR) as page:
        page.view(view)
        svg = minidom.parse(str(page.saved("SVG").path()))
        words = "".join(node.firstChild.data for node in svg.getElementsByTagName("text") if node.firstChild)
        assert "phase 2" in words and "padding excluded" in words and svg.documentElement.getAttribute("viewBox")
        assert not svg.getElementsByTagName("script")
        assert page.saved("PNG").path().read_bytes()[:4] == b"\x89PNG"


def test_text_of_data_and_models_never_runs(show):
    evil = HOSTILE[0]
    names = [HOSTILE[1], HOSTILE[2], evil]
    record = made_record([HOSTILE, CODE], members=names, checkpoint=evil)
    with show({evil: record, HOSTILE[1]: record}, title=evil) as page:
        for view in ("layers", "compare", "all", "depth", "tokens"):
            page.view(view)
            for index, _ in page.cells()[-3:]:
                page.hover(index)
            svg = page.saved("SVG").path().read_text()
            assert "<script" not in svg and "<img" not in svg and minidom.parseString(svg)
        page.frame.click("summary")
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
        assert "Content Security Policy" in page.said.pop()


def test_weights_that_do_not_add_up_are_told_at_once(show):
    with show(made_record(spoilt=1.02)) as page:
        assert page.frame.get_attribute(".check", "role") == "alert"
        assert "miss 1 by 0.020" in page.frame.text_content(".check")
    broken = made_record(mask="exclude")
    broken.kind_weight_sums[..., 2] += 0.01
    with show(broken) as page:
        assert "Do not read on" in page.frame.text_content(".check")


def test_without_kept_samples_means_are_there_and_tokens_say_why_not(show):
    with show(made_record(keep=0)) as page:
        np.testing.assert_allclose(matrix(page.rows(), made_record()), attention.mean(made_record()), atol=1e-6)
        page.view("tokens")
        assert "not kept" in page.caption() or "No token" in page.caption()


@pytest.mark.parametrize("width, height, scheme", [(400, 800, "dark"), (400, 800, "light"), (1920, 1080, "dark")])
def test_phone_projector_and_dark(show, tmp_path, width, height, scheme):
    with show(PAIR, width, height, scheme) as page:
        for view in ("layers", "compare", "all", "depth", "tokens"):
            page.view(view)
            assert page.frame.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
            assert page.frame.evaluate("document.querySelector('.stage').clientHeight") >= 160, "room to look at"
            page.page.screenshot(path=tmp_path / f"{view}-{width}-{scheme}.png")
        size = page.frame.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")
        assert size >= (18 if width == 1920 else 14)
        assert contrast(page.frame) >= 4.5
        page.frame.click(".theme")
        assert page.frame.get_attribute("html", "data-theme") == "dark"


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


def test_a_large_model_opens_at_once_and_stays_quick(show):
    with show(large_record(layers=48, tokens=4096, members=8)) as page:
        ready = int(page.frame.get_attribute("html", "data-ready"))
        assert ready < 2000, f"opened after {ready} ms"
        page.view("tokens")
        page.choose(pool="both")
        moved = page.frame.evaluate("""async () => { const slider = document.getElementById('choose-layer'), took = [];
            for (const layer of [5, 17, 40]) { const start = performance.now(); slider.value = layer;
                slider.dispatchEvent(new Event('input')); took.push(performance.now() - start); }
            document.querySelector('.stage').scrollTop = 2000;
            return took.sort((a, b) => a - b)[1]; }""")
        assert moved < 1000, f"a layer is drawn in {moved} ms"
        print(f"48 layers, 4096 tokens, 8 members: open after {ready} ms, another layer in {moved:.0f} ms")
