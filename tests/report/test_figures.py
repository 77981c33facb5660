"""Figures: each renders, names its axes and its n, carries a description; nothing of a token's text acts."""

from __future__ import annotations

import base64
import csv
import dataclasses
import functools
import html
import re
from pathlib import Path
from xml.dom import minidom

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nbconvert import HTMLExporter

from studykit.attention.record import FusionRecord, RecordedSample, token_marks
from studykit.errors import UserError
from studykit.evaluation.results import (
    Contrast,
    Interval,
    MethodCost,
    MethodSummary,
    MetricComparison,
    OwnAttention,
    Verdict,
)
from studykit.evaluation.worth import MemberWorth, Worth
from studykit.report.figures import comparison, fusion, heatmaps, style, training
from studykit.report.figures import tokens as figures_tokens
from studykit.report.figures import worth as figures_worth
from studykit.report.figures.forest import forest
from studykit.report.figures.tokens import COLUMNS, wrap
from studykit.report.html import render_notebook
from tests.made_records import made_summary

MEMBERS, TARGET, N = ["python", "ruby", "lua"], "lua", 37
PUBLISHED = Path(__file__).with_name("rq2_attention.csv")  # read off the bars of the authors' figures, ± 0.3 points
HOSTILE = [
    "<script>alert(1)</script>",
    "$x$",
    "a&b",
    '"q"',
    "\x00\x1b",
    "\ud800",
    "\n",
    "\t",
    "",
    " é ",
    "\u03bb\u2200",
    "$\\frac{",
]


def shares(layers: int = 4, seed: int = 0, members: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(members), size=layers)


def record(tokens: list[str], layers: int = 3) -> FusionRecord:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=(layers, len(tokens))).astype(np.float16)
    kinds = np.zeros(len(tokens), np.uint8)
    sample = RecordedSample("r<1>", tokens, token_marks(len(tokens) // 2, len(tokens)), kinds, weights, weights,
                            np.zeros(len(tokens), np.float16))  # fmt: skip
    made = FusionRecord.empty(MEMBERS, TARGET, "phase 2", [f"L{i + 1}" for i in range(layers)], ["r<1>"])
    made.samples.append(sample)
    return made


LOG = [
    {"step": 0, "eval_loss": 2.0, "eval_sequence_loss": 3.0},
    {"step": 5, "loss": 1.5, "value_penalty": 0.1},
    {"step": 10, "eval_loss": 1.0, "eval_sequence_loss": 2.0, "loss": 1.2},
]


def summary(method: str, mean: float, interval: tuple | None, points: list[float]) -> MethodSummary:
    bounds = Interval(low=interval[0], high=interval[1]) if interval else None
    return MethodSummary(method=method, mean=mean, sd=None, points=points, interval=bounds, interval_method="made", n=N,
                         clusters=None)  # fmt: skip


def contrast(method: str, value: float, interval: tuple | None, by_seed: list[float]) -> Contrast:
    bounds = Interval(low=interval[0], high=interval[1]) if interval else None
    verdict = Verdict(direction="undecided", seeds_confirm=False, p_holm=1.0, p_overall=1.0, equivalent_within=None)
    return Contrast(method=method, against="base", value=value, interval=bounds, n=N, clusters=None, p=1.0,
                    test="paired bootstrap", effect=1.0, effect_name="odds ratio", discordant=None, detectable=None,
                    p_overall=1.0, p_equivalent=None, error=None, detectable_overall=None, by_seed=by_seed,
                    overall_interval=None, verdict=verdict)  # fmt: skip


SCORES = [summary("base", 1.0, (0.0, 2.0), []), summary("lora", 5.0, (4.0, 6.5), [4, 5, 6])]
GAPS = [contrast("lora", 4.0, (3.0, 5.5), [3, 4, 5]), contrast("fusion", -1.0, (-3.0, 0.5), [])]
COMPARED = MetricComparison(
    metric="pass_at_1", label="pass@1", unit="%", baseline="base", language="lua", signature="made", confidence=0.95,
    margin=None, summaries=[
        SCORES[0], SCORES[1], summary("fusion, phase 1", 7.0, None, [7.0]).model_copy(update={"final": False}),
        summary("fusion", 0.0, (-1.0, 1.0), [0.0]),
    ], contrasts=GAPS,
)  # fmt: skip
OWN = [
    OwnAttention(method=method, phase=phase, own_weight=own, own_share=own, by_seed=[own, own], change=0.0,
                 change_sd=0.0, change_interval=None, samples=N, tokens="completion", empty_slot=False)
    for method, states in {
        "adapterfusion": {"initialisation": 0.3, "AdapterFusion": 0.4},
        "advfusion_zero": {"initialisation": 0.3, "phase 1, masked": 0.1, "phase 1, restored": 0.2, "phase 2": 0.25},
    }.items()
    for phase, own in states.items()
]  # fmt: skip
COSTS = [
    MethodCost(
        method="base",
        parameters=0,
        steps=None,
        seconds=None,
        cpu_seconds=None,
        members_seconds=None,
        members_cpu_seconds=None,
        memory_mb=400,
    ),
    MethodCost(
        method="lora",
        parameters=9000,
        steps=10,
        seconds=30.0,
        cpu_seconds=None,
        members_seconds=None,
        members_cpu_seconds=None,
        memory_mb=500,
    ),
]
MEANS = {row.method: row.mean for row in SCORES}
SEEDS = np.stack([shares(seed=seed) for seed in range(3)])  # (seeds, L, A)
LOOK = {"weights": shares().tolist(), "saturated": [0.1] * 4, "query_gradient": [0.2] * 4, "key_gradient": [0.3] * 4}
TRACE = [{"step": step, "eval_loss": 1.0, "attention": LOOK} for step in (0, 10)]
STEADY = [
    {"step": 0, "probe": {"cosine": 0.97}}, {"step": 20, "loss": 1.0, "grad_norms": [1.0, 1.1] * 10 + [9.0]},
    {"step": 20, "probe": {"cosine": 0.95}},
]  # fmt: skip
NAMES = ("initialisation", "phase 2")
WORTH = [
    MemberWorth(member=member, state="phase 2", mode="exclude", value=0.1, interval=Interval(low=0.05, high=0.2),
                by_seed=[0.05, 0.15], seed_interval=None, weight=0.4, share=0.5)
    for member in MEMBERS
]  # fmt: skip
WORTHS = {
    method: Worth(method=method, target=TARGET, samples=N, seeds=2, members=WORTH, correlations=[])
    for method in ("adapterfusion", "advfusion_zero")
}
SUMMARY = dataclasses.replace(made_summary(), samples=N)
LENGTHS = {"python": {"train": list(range(10, 40)), "test": [5, 60]}, "lua": {"train": [7] * 5}}

FIGURES = {
    "loss_curves": lambda: training.loss_curves({"phase 1": LOG, "phase 2": LOG}, samples=N, best={"phase 2": 5}),
    "stability_curves": lambda: training.stability_curves({"phase 1": STEADY, "phase 2": STEADY}),
    "attention_curves": lambda: training.attention_curves(
        {"phase 1": TRACE, "phase 2": TRACE}, MEMBERS, TARGET, samples=N
    ),
    "loss_curves of one phase in two": lambda: training.loss_curves({"phase 1": [], "phase 2": LOG}, samples=N),
    "stability_curves of one phase in two": lambda: training.stability_curves({"phase 1": STEADY, "phase 2": []}),
    "attention_curves without phase 1": lambda: training.attention_curves(
        {"phase 1": [], "phase 2": TRACE}, MEMBERS, TARGET, samples=N
    ),
    "attention_curves without phase 2": lambda: training.attention_curves(
        {"phase 1": TRACE, "phase 2": [{"step": 0, "eval_loss": 0.5}]}, MEMBERS, TARGET, samples=N
    ),
    "length_histograms": lambda: training.length_histograms(LENGTHS, limit=50),
    "fusion_heatmap": lambda: heatmaps.fusion_heatmap(shares(), MEMBERS, TARGET, samples=N),
    "fusion_panels": lambda: heatmaps.fusion_panels({"a": shares(), "b": shares(seed=1)}, MEMBERS, "lua", samples=N),
    "phase_comparison": lambda: heatmaps.phase_comparison(SEEDS, SEEDS[::-1], MEMBERS, TARGET, samples=N, names=NAMES),
    "attention_by_phase": lambda: fusion.attention_by_phase(
        {phase: SEEDS.mean(1) for phase in ("init", "phase 1", "phase 2")}, MEMBERS, TARGET, samples=N
    ),
    "entropy_per_layer": lambda: fusion.entropy_per_layer(
        {"a": SEEDS[..., 0], "b": SEEDS[0, :, 1]}, members=3, samples=N
    ),
    "target_share_per_layer": lambda: fusion.target_share_per_layer(
        {"a": SEEDS[..., 2]}, target=TARGET, members=3, samples=N
    ),
    "weight_against_worth": lambda: figures_worth.weight_against_worth(WORTH, TARGET, samples=N),
    "weight_and_worth": lambda: figures_worth.weight_and_worth(SUMMARY, WORTHS["advfusion_zero"], message="Lua."),
    "weight_and_worth without muting": lambda: figures_worth.weight_and_worth(SUMMARY, None),
    "member_worth": lambda: comparison.member_worth(WORTHS),
    "saturation_per_layer": lambda: fusion.saturation_per_layer({"a": SEEDS[..., 2]}, samples=N),
    "stacked_bars": lambda: fusion.stacked_bars(shares(), MEMBERS, TARGET, samples=N),
    "comparison": lambda: comparison.scores(SCORES, metric="pass@1 (%)", samples=N, baseline="base"),
    "forest": lambda: forest(COMPARED, message="AdvFusion is better."),
    "own_weight_slopes": lambda: comparison.own_weight_slopes(OWN, TARGET),
    "change_panels": lambda: heatmaps.change_panels(
        {"minus uniform": {"a": SEEDS - 1 / 3, "b": SEEDS[::-1] - 1 / 3}, "minus init": {"a": SEEDS - SEEDS[::-1]}},
        MEMBERS,
        TARGET,
        samples=N,
    ),
    "cost": lambda: comparison.cost(COSTS, MEANS, metric="pass@1 (%)", samples=N),
    "token_strip": lambda: figures_tokens.token_strip(record(HOSTILE)),
    "token_strip of a member": lambda: figures_tokens.token_strip(
        record(HOSTILE), layers=1, member="lua", weighted=True
    ),
}
NAMED_ROWS = ("forest", "comparison", "member_worth", "weight_and_worth", "weight_and_worth without muting")
COUNTED = {
    "stability_curves": "n = 42 steps",
    "stability_curves of one phase in two": "n = 21 steps",
    "length_histograms": "n = 37",
    "token_strip": "n = 1 ",
    "token_strip of a member": "n = 1 ",
}


def labelled(figure: Figure) -> list[mpl.axes.Axes]:
    """The axes of a figure that hold data: no colour bars, nothing invisible."""
    return [axes for axes in figure.axes if axes.get_visible() and axes.axison and axes.get_label() != "<colorbar>"]


@functools.cache
def rendered(name: str) -> tuple[Figure, str]:
    figure = FIGURES[name]()
    return figure, style.svg(figure)


def texts(figure: Figure) -> list[str]:
    """The text elements of the SVG, parsed."""
    found = minidom.parseString(style.svg(figure)).getElementsByTagName("text")
    return ["".join(node.data for node in text.childNodes) for text in found]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_and_says_what_it_shows(name):
    figure, text = rendered(name)
    for words in (figure.alt, figure.caption):
        assert COUNTED.get(name, f"n = {N}") in words
    assert len(figure.alt) > 40
    axes = labelled(figure)
    if not name.startswith("token_strip"):
        assert axes and any(each.get_xlabel() for each in axes)
        assert name in NAMED_ROWS or any(each.get_ylabel() for each in axes), "names of methods need no title"
    document = minidom.parseString(text).documentElement
    assert document.tagName == "svg" and document.getAttribute("role") == "img"
    assert document.getAttribute("aria-label") == style.NOT_XML.sub("\ufffd", figure.alt)
    assert document.getElementsByTagName("title")[0].firstChild.data == document.getAttribute("aria-label")


@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_reaches_outside_or_holds_a_script(name):
    _, text = rendered(name)
    document = minidom.parseString(text)
    for element in document.getElementsByTagName("*"):
        assert element.tagName not in ("script", "foreignObject", "image", "a", "iframe")
        for attribute, value in element.attributes.items():
            assert not attribute.lower().startswith("on")
            if attribute.endswith("href"):
                assert value.startswith("#")
            assert attribute.startswith("xmlns") or not re.search(r"https?:|javascript:|url\((?!#)", value)
    assert "<!DOCTYPE" not in text and "@import" not in text


@pytest.mark.parametrize("name", FIGURES)
def test_no_label_is_in_tex(name):
    assert not [text for text in texts(rendered(name)[0]) if "\\math" in text]


@pytest.mark.parametrize(
    "low, high, shown", [(3.1, 4.8, {"4"}), (0.31, 0.45, {"0.4"}), (0.8, 30, {"1", "2", "5", "10", "20"})]
)
def test_a_logarithmic_axis_has_plain_numbers(low, high, shown):
    figure, axes = style.new_figure()
    axes[0, 0].plot([0, 1], [low, high])
    style.logarithmic(axes[0, 0])
    figure.draw_without_rendering()
    low, high = axes[0, 0].get_ylim()
    labels = {
        text.get_text() for text in [*axes[0, 0].get_yticklabels(which="both")] if low <= text.get_position()[1] <= high
    }
    assert shown <= labels and all(re.fullmatch("[0-9.]*", label) for label in labels)


@pytest.mark.parametrize("name", FIGURES)
def test_no_label_is_cut_off(name):
    figure, _ = rendered(name)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        if axes.get_visible():
            box = axes.get_tightbbox()
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1


def test_svg_is_the_same_twice_and_ids_differ_between_figures():
    one, again, other = (
        fusion.stacked_bars(shares(seed=seed), MEMBERS, samples=n) for seed, n in ((0, 3), (0, 3), (0, 4))
    )
    assert style.svg(one) == style.svg(again)
    clips = [set(re.findall(r'clipPath id="(\w+)"', style.svg(figure))) for figure in (one, other)]
    assert clips[0] and not clips[0] & clips[1]


def test_a_figure_in_the_page_has_alt_and_caption_escaped():
    figure = Figure()
    figure.subplots().plot([1, 2])
    page = style.figure_html(figure, alt='"><script>x</script>', caption="a < b & <i>c</i>")
    assert "<script>" not in page and "<i>" not in page
    assert f'alt="{html.escape(chr(34) + "><script>x</script>")}"' in page
    assert "<figcaption" in page and "a &lt; b &amp; &lt;i&gt;c&lt;/i&gt;" in page
    with pytest.raises(ValueError, match="no alt text"):
        style.figure_html(figure)


def test_a_study_of_the_base_alone_has_a_picture_of_its_cost():
    unmeasured = COSTS[0].model_copy(update={"memory_mb": None})
    for costs, labels in ((COSTS[:1], ["peak memory (MB)"]), ([unmeasured], ["trainable parameters"])):
        drawn = comparison.cost(costs, MEANS, metric="pass@1 (%)", samples=N)
        assert [panel.get_xlabel() for panel in drawn.axes] == labels


def test_nbconvert_and_the_report_keep_the_alternative_text(capsys):
    figure = FIGURES["stacked_bars"]()
    output = nbformat.v4.new_output("display_data", {"text/html": style.figure_html(figure)})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook)
    for text in (page, render_notebook(notebook).content):
        assert f'alt="{html.escape(figure.alt)}"' in text
        assert html.escape(figure.caption, quote=False) in re.sub("</?abbr[^>]*>", "", text)  # terms are explained
    assert "No description has been provided" not in page


def test_what_is_too_large_becomes_a_png(monkeypatch):
    def source(page: str) -> tuple[str, bytes]:
        kind, data = re.search(r'src="data:image/([\w+]+);base64,([^"]+)"', page).groups()
        return kind, base64.b64decode(data)

    figure = FIGURES["stacked_bars"]()
    assert source(style.figure_html(figure)) == ("svg+xml", style.svg(figure).encode())
    monkeypatch.setattr(style, "MAX_SVG_BYTES", 100)
    kind, data = source(style.figure_html(figure))
    assert kind == "png" and data.startswith(b"\x89PNG")


def test_show_displays_once_and_save_writes_files_for_papers(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    figure = FIGURES["fusion_heatmap"]()
    assert style.show(figure) is None
    assert len(shown) == 1 and set(shown[0]) == {"text/html", "text/plain"} and figure.caption in shown[0]["text/plain"]
    style.show(figure, folded="a < b")
    assert shown[1]["text/html"].startswith("<details><summary>a &lt; b</summary>")
    for ending, start in (("svg", b"<svg"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        assert style.save(figure, tmp_path / f"figure.{ending}").read_bytes().startswith(start)


def test_token_text_is_text():
    figure = figures_tokens.token_strip(record(HOSTILE))
    drawn = texts(figure)
    assert "<script>alert(1)</script>" in drawn and "$x$" in drawn and "a&b" in drawn and "$\\frac{" in drawn
    assert {"\u21b5", "\u2192", "\u2205", "\u00b7é\u00b7", "\u03bb\u2200", "\ufffd"} <= set(drawn)
    assert "<script>" not in style.svg(figure) and "<script>" not in style.figure_html(figure)


def test_text_that_looks_like_a_style_stays_text():
    hostile = 'x style="}@import url(//example.org/)" transform="rotate(-0 1)"'
    drawn = fusion.stacked_bars(shares(), [hostile, hostile + "y", "lua"], "lua", samples=N, title=hostile)
    assert texts(drawn).count(hostile) == 2 and hostile + "y" in texts(drawn)
    sheets = minidom.parseString(style.svg(drawn)).getElementsByTagName("style")
    assert len(sheets) == 1 and "import" not in sheets[0].firstChild.data


def test_token_strip_shows_what_the_record_holds():
    kept = record([f"t{i}" for i in range(12)])
    figure = figures_tokens.token_strip(kept, layers=[0, 2], limit=10)
    blocks = [axes for axes in figure.axes if axes.get_title("left")]
    assert [axes.get_title("left") for axes in blocks] == ["L1", "L3"]
    for axes, layer in zip(blocks, (0, 2), strict=True):
        drawn = [text.get_text() for text in axes.texts]
        winners = [str(best + 1) for best in kept.samples[0].weights[layer, :10].argmax(-1)]
        assert drawn[::2] == [f"t{i}" for i in range(10)] and drawn[1::2] == winners
        assert len(axes.lines) == 10 - 5  # positions 5 to 9 predict the completion
    assert "the first 10 tokens" in figure.caption
    for wrong in ({"sample": 1}, {"layers": 3}, {"member": "go"}):
        with pytest.raises(UserError, match="accepted"):
            figures_tokens.token_strip(kept, **wrong)


def test_token_strip_names_its_seed_and_the_mean_weight_of_the_target():
    kept = record([f"t{i}" for i in range(12)])
    assert "seed" not in figures_tokens.token_strip(kept).caption
    kept.seed = 4
    figure = figures_tokens.token_strip(kept, layers=1)
    own = kept.samples[0].weights[1, 5:-1, 2].astype(float).mean()
    assert "r<1>, phase 2, seed 4, " in figure.caption and "r<1>, phase 2, seed 4, " in figure.alt
    assert f"lua has a mean weight of {own:.1%} at the tokens that predict the completion" in figure.alt
    assert "mean norm-weighted share of" in figures_tokens.token_strip(kept, weighted=True).alt


def test_a_token_of_even_weights_is_palest_whatever_is_excluded():
    """The winner's colour is paler towards uniform over the members that take part."""

    def face(weights, **mask):
        kept = record(["a", "b", "c"])
        kept.samples[0].weights[:] = weights
        for name, value in mask.items():
            setattr(kept, name, value)
        return figures_tokens.token_strip(kept, layers=0).axes[0].patches[0].get_facecolor()[:3]

    excluded = {"mask": "exclude", "masked": ["lua"]}
    assert face([0.5, 0.5, 0], **excluded) == pytest.approx(face([1 / 3, 1 / 3, 1 / 3]), abs=1e-3)
    assert face([0.5, 0.5, 0]) != pytest.approx(face([1 / 3, 1 / 3, 1 / 3]), abs=1e-3)
    assert face([1, 0, 0], mask="exclude", masked=["ruby", "lua"]) == pytest.approx(face([1 / 3] * 3), abs=1e-3)


def test_wrapping_keeps_order_and_never_overlaps():
    places = wrap(["a" * 30, "b" * 80, "c", "d" * 500], COLUMNS)
    assert places == [(0, 0, 30), (1, 0, 80), (1, 80, 1), (2, 0, 100)]


def test_heatmap_cells_hold_the_weights_and_the_target_is_framed():
    weights = np.array([[0.0, 0.996, 0.004], [0.25, 0.25, 0.5]])
    axes = heatmaps.fusion_heatmap(weights, MEMBERS, "ruby", samples=N).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0", "100", "<1", "25", "25", "50"]
    frame = axes.patches[0]
    assert (frame.get_x(), frame.get_width(), frame.get_height()) == (1, 1, 2)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["L1 (input)", "L2"]


def test_difference_is_second_less_first_on_a_centred_scale():
    first, second = np.array([[[0.2, 0.5, 0.3]]]), np.array([[[0.6, 0.398, 0.002]]])
    figure = heatmaps.phase_comparison(first, second, MEMBERS, TARGET, samples=N, names=NAMES)
    change = figure.axes[2]
    assert [text.get_text() for text in change.texts] == ["+40", "-10", "-30"]
    norm = change.collections[0].norm
    assert norm.vmin == -norm.vmax == pytest.approx(-0.4)
    other = np.concatenate([second, np.array([[[0.6, 0.1, 0.3]]])])  # a second seed moves the last two otherwise
    seeds = heatmaps.phase_comparison(
        first.repeat(2, 0), other[:, :, [0, 2, 1]], MEMBERS, TARGET, samples=N, names=NAMES
    )
    assert [text.get_text().startswith("(") for text in seeds.axes[2].texts] == [False, False, True]


def test_points_of_seeds_and_their_mean():
    values = {"init": np.array([[0.2, 0.8], [0.4, 0.6]]), "phase 2": np.array([[0.1, 0.9]])}
    axes = fusion.attention_by_phase(values, ["a", "b"], "b", samples=N).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["a"], [30, 10])
    np.testing.assert_allclose(lines["b (target)"], [70, 90])
    points = sorted(y for dots in axes.collections for y in dots.get_offsets()[:, 1])
    np.testing.assert_allclose(points, [10, 20, 40, 60, 80, 90])


def levels(figure: Figure) -> dict[str, float]:
    """The dotted levels of a figure: name -> height."""
    axes = figure.axes[0]
    drawn = {text.get_text(): text.xy[1] for text in axes.texts}
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":" or line.get_linewidth() == 0.8]
    assert sorted(heights) == sorted(drawn.values())
    return drawn


def test_uniform_is_over_the_members_that_take_part():
    """A level for each distinct number, named with its lines where there are several."""
    lines, some = {"phase 1": SEEDS[..., 0], "phase 2": SEEDS[..., 1]}, {"phase 1": 4, "phase 2": 5}
    five, four = "uniform over 5 members", "uniform over 4 members"
    bits = fusion.entropy_per_layer(lines, members=some, samples=N)
    assert levels(bits) == pytest.approx({f"{five} (phase 2)": np.log2(5), f"{four} (phase 1)": 2})
    own = fusion.target_share_per_layer(lines, target=TARGET, members=some, samples=N)
    assert levels(own) == pytest.approx({f"{five} (phase 2)": 20, f"{four} (phase 1)": 25})
    for members in (5, {"phase 1": 5, "phase 2": 5}):
        assert levels(fusion.entropy_per_layer(lines, members=members, samples=N)) == {five: np.log2(5)}
    assert levels(fusion.entropy_per_layer(lines, members=some, samples=N, normalised=True)) == {"uniform": 1}
    for figure in (bits, own):
        assert all(name in words for name in levels(figure) for words in (figure.alt, figure.caption))


def test_a_mean_over_seeds_says_so():
    for draw in (
        lambda **seeds: heatmaps.fusion_heatmap(shares(), MEMBERS, TARGET, samples=N, **seeds),
        lambda **seeds: heatmaps.fusion_panels({"a": shares()}, MEMBERS, TARGET, samples=N, **seeds),
        lambda **seeds: fusion.stacked_bars(shares(), MEMBERS, TARGET, samples=N, **seeds),
    ):
        assert f"n = {N} samples, 3 seeds, completion tokens" in draw(seeds=3).caption
        assert "seed" not in draw().caption
    assert "1 seed," in fusion.entropy_per_layer({"a": SEEDS[0, :, 0]}, members=3, samples=N).caption


def test_panels_are_called_what_they_show_and_bars_what_they_are_of():
    panels = heatmaps.fusion_panels({"a": shares()}, MEMBERS, TARGET, samples=N, quantity="weight or share")
    bar = next(axes for axes in panels.axes if axes.get_label() == "<colorbar>")
    assert bar.get_ylabel() == "weight or share (%)"
    assert all("weight or share" in words and "fusion" not in words for words in (panels.alt, panels.caption))
    titles = "phase 1, mask zero", "phase 2"
    bars = [fusion.stacked_bars(shares(), MEMBERS, TARGET, samples=N, title=title) for title in titles]
    for figure, title in zip(bars, titles, strict=True):
        assert figure.caption.startswith(
            f"{title}: The target lua gets 35.5% on average. Mean"
        ) and figure.alt.startswith(f"{title}: Stacked")


def test_phases_of_a_loss_follow_each_other():
    logs = {"phase 1": LOG, "phase 2": LOG}
    figure = training.loss_curves(logs, samples=N, best={"phase 1": 10, "phase 2": 5})
    axes, below = figure.axes
    curves = [
        line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "s"
    ]
    assert curves == [[0, 10], [10, 20]]
    verticals = [line.get_xdata()[0] for line in axes.lines if line.get_xdata()[0] == line.get_xdata()[-1]]
    assert sorted(verticals) == [10, 10, 15]
    assert any("+1.000" in text.get_text() for text in axes.texts), "the jump between the phases"
    assert {line.get_label() for line in below.lines} > {"validation, prompt + completion"}
    kept = next(row["eval_loss"] for row in LOG if row["step"] == 10)
    last = training.loss_curves(logs, samples=N, best={"phase 2": 10})
    assert f"; {kept:.3f} with the weights kept." in last.caption
    alone = training.loss_curves({"": [{"step": 5, "loss": 2.0}]}, samples=N)
    assert len(alone.axes) == 1 and "kept" not in alone.caption


def test_the_caption_of_attention_ends_at_the_weights_kept():
    def look(step, own):
        return {"step": step, "eval_loss": 1.0, "attention": LOOK | {"weights": [[1 - own, 0.0, own]] * 4}}

    logs = {"phase 1": [look(0, 0.0), look(10, 0.0)], "phase 2": [look(0, 0.2), look(10, 0.5), look(20, 0.9)]}
    for best, end, words in ((None, "90.0%", "the last"), ({"phase 2": 10}, "50.0%", "the weights kept"),
                             ({"phase 2": 0}, "20.0%", "the weights kept")):  # fmt: skip
        figure = training.attention_curves(logs, MEMBERS, TARGET, samples=N, best=best)
        assert f"lua from 0.0% (excluded) to {end}" in figure.caption and f"to {words}, the mean" in figure.caption
        dotted = [line.get_xdata()[0] for line in figure.axes[1].lines if line.get_linestyle() == ":"]
        assert [x for x in dotted if x] == ([10 + best["phase 2"]] if best else [])


def test_attention_is_drawn_layer_by_layer_in_the_phase_in_which_it_was_read():
    looks = {phase: np.random.default_rng(n).dirichlet(np.ones(3), size=(3, 4)) for n, phase in enumerate("ab")}
    logs = {
        phase: [{"step": 10 * i, "eval_loss": 1.0, "attention": LOOK | {"weights": weights.tolist()}}
                for i, weights in enumerate(of_phase)]
        for phase, of_phase in looks.items()
    }  # fmt: skip
    axes = training.attention_curves(logs, MEMBERS, TARGET, samples=N).axes[2]
    for start, mesh, weights in zip((0, 20), axes.collections, looks.values(), strict=True):
        np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], start + np.array([0, 5, 15, 20]))
        drawn = mesh.get_array().reshape(3, 4, 3)  # members from below, layers, looks
        np.testing.assert_allclose(drawn[::-1].transpose(2, 1, 0), 100 * weights)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["python", "ruby", "lua (target)"]
    assert axes.get_yticks()[0] > axes.get_yticks()[-1], "in the order of the members, from above"


def test_members_are_worth_what_was_measured_in_the_look_of_their_method():
    looks = style.method_looks(["base", *WORTHS])
    figure = comparison.member_worth(WORTHS, looks=looks)
    drawn = {line.get_label(): line for line in figure.axes[0].lines if line.get_label() in WORTHS}
    for method, line in drawn.items():
        assert (line.get_color(), line.get_marker()) == (looks[method].colour, looks[method].marker)
        np.testing.assert_allclose(line.get_xdata(), [row.value for row in WORTH])
    assert figure.caption.startswith("adapterfusion, advfusion_zero need python most."), "the message comes first"


def test_weight_and_worth_has_a_row_per_member_with_the_numbers_of_the_summary():
    figure = figures_worth.weight_and_worth(SUMMARY, WORTHS["advfusion_zero"], message="It attends to Lua.")
    weights, costs = figure.axes
    finished = weights.collections[0].get_offsets()
    np.testing.assert_allclose(finished[:, 0], 100 * SUMMARY.last.weights.mean((0, 1)))
    before = {line.get_label(): line.get_xdata() for line in weights.lines}
    for state in ("initialisation", "phase 1, restored"):
        np.testing.assert_allclose(before[state], 100 * SUMMARY.phases[state].weights.mean((0, 1)))
    assert "phase 1, masked" not in before, "a mask moves weight by itself"
    assert [line.get_xdata()[0] for line in costs.lines if line.get_marker() == "o"] == [row.value for row in WORTH]
    assert figure.caption.startswith("It attends to Lua. Left:"), "the message comes first"
    assert len(figures_worth.weight_and_worth(SUMMARY, None).axes) == 1


def test_overlong_samples_are_counted_not_dropped():
    figure = training.length_histograms(LENGTHS, limit=50)
    assert "1 of 37 are longer than the limit of 50 tokens" in figure.caption
    stairs = [patch for axes in figure.axes for patch in axes.patches if hasattr(patch, "get_data")]
    np.testing.assert_allclose([patch.get_data().values.sum() for patch in stairs], 100)


def test_what_was_not_measured_is_said():
    figure = comparison.cost(COSTS, MEANS, metric="x", samples=N)
    assert "Not measured, hence left out: base (training time (s))" in figure.caption


@pytest.mark.parametrize("zero", [True, False])
def test_each_point_of_a_cost_has_its_name_and_no_name_covers_another(zero):
    """However many methods train as many parameters and score alike."""
    costs = [
        COSTS[1].model_copy(update={"method": f"advfusion_exclude-{i}", "parameters": 9000 * (i > 0 or not zero),
                                    "seconds": 3.0 + i // 4, "memory_mb": 500 + i})
        for i in range(15)
    ]  # fmt: skip
    figure = comparison.cost(costs, {one.method: i % 3 for i, one in enumerate(costs)}, metric="pass@1 (%)", samples=N)
    figure.draw_without_rendering()
    assert not figure.legends and [axes.get_xscale() for axes in figure.axes] == ["symlog" if zero else "log", "log"]
    assert "All methods are within 6% in peak memory (MB)" in figure.caption
    for axes in figure.axes:
        boxes = [mpl.text.Text.get_window_extent(text) for text in axes.texts]
        assert [text.get_text() for text in axes.texts if text.get_text()] and len(boxes) == len(costs)
        assert {text.get_text() for text in axes.texts} == {one.method for one in costs}
        assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.padded(-0.5).overlaps(other)]
        panel = axes.get_window_extent()
        assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 - 1 <= box.y0 for box in boxes)


def test_a_single_row_has_a_point_and_no_interval():
    scores = comparison.scores([summary("base", 1.0, None, []), SCORES[1]], metric="pass@1 (%)", samples=1)
    gap = contrast("lora", 4.0, None, [3, 4, 5])
    gaps = forest(COMPARED.model_copy(update={"summaries": SCORES, "contrasts": [gap]}))
    assert "base 1 (no interval); lora 5 (4 to 6.5)" in scores.alt and "lora 5.0 (+4.0, –, undecided)" in gaps.alt
    assert all(style.svg(figure) for figure in (scores, gaps))


def test_the_forest_draws_differences_around_scores_and_phases_above():
    figure = forest(COMPARED, looks=style.method_looks(["base", "lora", "fusion"]))
    lines = [(line.get_linewidth(), line.get_xdata(), line.get_ydata()) for line in figure.axes[0].lines]
    (_, interval, _), *_ = [line for line in lines if line[0] == 3.2 and line[2][0] == 1]
    np.testing.assert_allclose(interval, (4.0, 6.5))  # +3.0 to +5.5, around 5 where the baseline has 1
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[7.0]] and hollow[0].get_ydata()[0] < 2
    assert {"baseline", "+4.0", "\u22121.0", "\u25cb undecided"} <= set(texts(figure))


def test_no_line_of_the_forest_is_where_no_score_can_be():
    wide = contrast("lora", 4.0, (-50.0, 400.0), [3, 4, 5])
    for metric, ends in (("pass_at_1", [0, 100]), ("loss", [0, 401]), ("embedding", [-49, 100])):
        figure = forest(COMPARED.model_copy(update={"contrasts": [wide], "metric": metric}))
        (line,) = [line for line in figure.axes[0].lines if line.get_linewidth() == 3.2]
        assert list(line.get_xdata()) == ends, "the baseline's 1 and the interval of the difference"
        assert "cut where no score can be" in figure.caption
        low, high = figure.axes[0].get_xlim()
        assert low < 0 < high and (low > -5 or metric == "embedding")
    inside = [contrast("lora", 4.0, (3.0, 5.5), [3, 4, 5])]
    assert "cut where" not in forest(COMPARED.model_copy(update={"contrasts": inside})).caption


def test_a_base_that_lies_far_away_does_not_squeeze_the_rest():
    summaries = [summary("base", 0.0, None, []), *(summary(f"lora{i}", 90.0 + i, None, [90.0 + i]) for i in range(3))]
    compared = COMPARED.model_copy(update={"baseline": "lora0", "summaries": summaries, "contrasts": []})
    axes = forest(compared).axes[0]
    assert axes.get_xlim()[0] > 85 and "\u25c4 0.0" in texts(axes.figure)


def test_a_slope_goes_through_all_states_and_labels_do_not_overlap():
    axes = comparison.own_weight_slopes(OWN, TARGET).axes[0]
    means = [line for line in axes.lines if line.get_marker() != "None"]
    assert [list(line.get_xdata()) for line in means] == [[0, 3], [0, 1, 2, 3]]
    np.testing.assert_allclose(means[1].get_ydata(), [30, 10, 20, 25])
    assert comparison._spread([1.0, 1.0, 5.0], 2.0) == [1.0, 3.0, 5.0]


def test_categories_stay_apart_in_grey_and_beyond_eight():
    seen = {(c["color"], c["marker"], str(c["linestyle"])) for c in map(style.category_style, range(24))}
    assert len(seen) == 24
    for colour in style.COLOURS:
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        contrast = 1.05 / (light + 0.05) if style.ink_on(colour) == "white" else (light + 0.05) / 0.05
        assert contrast >= 4.5  # WCAG AA


METHODS = ["base", *(f"method_{i}" for i in range(20)), "advfusion_zero", "advfusion_zero-houlsby", "advfusion_exclude"]


def test_each_method_of_a_study_has_its_own_colour_and_marker():
    looks = style.method_looks(METHODS)
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(METHODS)
    assert [name for name, look in looks.items() if look.colour == style.GREY] == ["base"]
    assert looks == style.method_looks(METHODS[1:]) | {"base": looks["base"]}, (
        "the base takes no colour from the others"
    )
    for name in METHODS:
        phase_1, phase_2 = (style.look_of(f"{name}{sign}{phase}", looks)
                            for sign, phase in ((", ", "phase 1"), (" · ", "phase 2")))  # fmt: skip
        assert phase_2 == looks[name] and phase_1 == dataclasses.replace(looks[name], filled=False)
    assert style.look_of("another", looks) == style.look_of("yet another", None)


def test_a_method_looks_the_same_in_all_figures():
    looks = style.method_looks(["base", "fusion", "lora"])
    scores, gaps, costs = (
        comparison.scores(SCORES, metric="x", samples=N, looks=looks),
        forest(COMPARED, looks=looks),
        comparison.cost(COSTS, MEANS, metric="x", samples=N, looks=looks),
    )
    expected = looks["lora"].colour, looks["lora"].marker
    for figure in (scores, gaps, costs):
        assert expected in {(line.get_color(), line.get_marker()) for axes in figure.axes for line in axes.lines}


def test_the_authors_figure_is_redrawn_from_the_published_shares():
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    for target, method in sorted({(row["target"], row["method"]) for row in rows}):
        mine = [row for row in rows if (row["target"], row["method"]) == (target, method)]
        members = list(dict.fromkeys(row["adapter"] for row in mine))
        weights = np.zeros((12, len(members)))
        for row in mine:
            weights[int(row["layer"]) - 1, members.index(row["adapter"])] = float(row["percent"]) / 100
        axes = fusion.stacked_bars(weights, members, {"js": "javascript"}.get(target, target)).axes[0]
        for member, bars in zip(members, axes.containers, strict=True):
            assert bars.get_label().startswith(member)
            np.testing.assert_allclose([bar.get_width() for bar in bars], weights[:, members.index(member)])
            np.testing.assert_allclose(
                [bar.get_y() + bar.get_height() / 2 for bar in bars], range(12)
            )  # L1 at the bottom
        labels = sorted(text.get_text() for text in axes.texts)
        assert labels == sorted(f"{share:.1%}" for share in weights.flat if share >= 0.02)
