"""All scores of a family side by side: tables, the count of leads, the figures and the first page."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from studykit.evaluation import comparison
from studykit.evaluation.gathered import GatheredMetric
from studykit.evaluation.results import ComparisonResults
from studykit.report import figures, index, side_by_side, summary
from studykit.report.documents import render
from studykit.study.plan import Run
from tests import made_scores
from tests.report.test_pooled import results as gathered_results

FIRST = "advfusion_exclude, phase 1"
SIZES, DRAWS = (10, 30, 100), (0, 1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    return tmp_path


def compared(shares: dict[str, float], metrics=("pass_at_1", "loss")) -> ComparisonResults:
    """A comparison of methods that pass these shares of the rows; phase 1 of AdvFusion passes 10 %."""
    scores = {name: made_scores.method(share, loss=2 - share) for name, share in shares.items()}
    if "advfusion_exclude" in scores:
        final = scores["advfusion_exclude"].checkpoints
        before = [one.model_copy(update={"name": "phase 1"}) for one in made_scores.method(0.1, loss=1.9).checkpoints]
        after = [one.model_copy(update={"name": "phase 2"}) for one in final]
        scores["advfusion_exclude"] = made_scores.changed(scores["advfusion_exclude"], checkpoints=before + after)
    options = {"baseline": next(iter(shares)), "confidence": 0.95, "resamples": 1400}
    found = {metric: comparison.compare(scores, metric, **options) for metric in metrics}
    return ComparisonResults(main=metrics[0], metrics=found, sources=[], attention=[], cost=[], time=[])


def family(home, of_study) -> tuple[dict[str, str], dict]:
    """The runs and the levels of a family over two keys; `of_study` makes each comparison from its size and draw."""
    compares, levels = {}, {"target_examples": {}, "data.seed": {}}
    for size in SIZES:
        for draw in DRAWS:
            study, run = f"target_examples {size}, data.seed {draw}", f"runs/compare/lua-{size}-{draw}"
            (home / run).mkdir(parents=True)
            (home / run / "compare.json").write_text(of_study(size, draw).model_dump_json())
            compares[study] = run
            levels["target_examples"][study], levels["data.seed"][study] = size, draw
    return compares, levels


def grows(size: int, draw: int) -> ComparisonResults:
    """The adapter alone gains with its rows and overtakes the fusion; the draws differ a little."""
    alone = {10: 0.0, 30: 0.2, 100: 0.6}[size] + 0.05 * draw
    return compared({"bottleneck": alone, "advfusion_exclude": 0.4})


def studies(home, of_study=grows) -> list[side_by_side.StudyScores]:
    return side_by_side.read_studies(*family(home, of_study))


def test_a_line_per_study_holds_what_the_studies_published(home):
    found = studies(home)
    lines = side_by_side.score_table(found, "pass_at_1")
    assert len(lines) == 6
    assert lines[3] == {
        "target_examples": "30", "data.seed": "1", "bottleneck": "25.0", FIRST: "10.0", "advfusion_exclude": "40.0"
    }  # fmt: skip
    mean = found[3].by("loss").summary("advfusion_exclude").mean
    assert side_by_side.score_table(found, "loss")[3]["advfusion_exclude"] == f"{mean:.3f}" != "0.000"
    assert "over 3 seeds" in side_by_side.score_caption(found, "loss")


def test_methods_are_the_lines_where_there_are_more_of_them_than_studies(home):
    words = ["bottleneck", "lora", "houlsby", "parallel", "compacter", "average", "adapterfusion"]
    few = studies(home, lambda size, draw: compared(dict.fromkeys(words, size / 1000)))
    lines = side_by_side.score_table(few, "pass_at_1")
    assert [line["method"] for line in lines] == words and lines[0]["target_examples 100, data.seed 0"] == "10.0"


def test_leads_are_counted(home):
    assert side_by_side.leads(studies(home)) == [
        "By pass@1, **advfusion_exclude** has the highest mean in 4 of 6 studies.",
        "By the completion loss, **advfusion_exclude** has the lowest mean in 4 of 6 studies.",
    ]


def test_a_shared_first_place_is_no_lead(home):
    tied = studies(home, lambda size, draw: compared({"bottleneck": 0.4, "lora": 0.4}, ("pass_at_1",)))
    assert side_by_side.leads(tied) == []


def test_few_methods_are_lines_with_panels_for_the_other_key(home):
    found = studies(home)
    figure = figures.scores_by_study(found, "target_examples", looks=figures.method_looks(["bottleneck"]))
    assert [axes.get_title() for axes in figure.axes] == ["data.seed 0"] * 2 + ["data.seed 1"] * 2
    first = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert first["bottleneck"] == pytest.approx([0.0, 20.0, 60.0])
    assert first["advfusion_exclude"] == pytest.approx([40.0] * 3)
    assert any(list(line.get_ydata()) == pytest.approx([10.0] * 3) for line in figure.axes[0].lines), "phase 1"
    assert "bottleneck 60" in figure.alt and "Small dots are seeds." in figure.caption
    assert "in 4 of 6 studies" in figure.caption and "Hollow: after phase 1." in figure.caption
    assert "<svg" in figures.svg(figure)


def test_over_many_combinations_of_other_keys_lines_are_means(home, monkeypatch):
    monkeypatch.setattr(figures.side_by_side, "MOST_ROWS", 1)
    figure = figures.scores_by_study(studies(home), "target_examples")
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines["bottleneck"] == pytest.approx([2.5, 22.5, 62.5]) and len(figure.axes) == 2
    assert "Small dots are means of single studies." in figure.caption


def test_studies_that_are_judged_by_unlike_scores_have_panels_and_scales_of_their_own(home):
    def of_study(size, draw):
        return compared({"bottleneck": 0.2, "lora": 0.5}, ("exact_match" if draw else "pass_at_1", "loss"))

    found = studies(home, of_study)
    assert side_by_side.metrics_of(found) == ["pass_at_1", "exact_match", "loss"]
    assert (
        len(side_by_side.score_table(found, "exact_match")) == 3 and len(side_by_side.score_table(found, "loss")) == 6
    )
    figure = figures.scores_by_study(found, "target_examples")
    labels = [axes.get_xlabel().split("\n")[0] for axes in figure.axes]
    assert labels == ["pass@1", "Exact match"] * 3 + ["Completion loss"] * 6
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["bottleneck", "lora"]


def test_all_pooled_differences_stand_in_one_figure_with_their_verdicts():
    decided = figures.pooled_differences(gathered_results([4.0, 5.1, 5.9, 7.0, 8.1]))
    undecided = figures.pooled_differences(gathered_results([-3.0, 3.1, -2.0, 2.1]))
    assert "+6.0, better" in decided.alt and ", undecided" in undecided.alt
    assert any("better" in text.get_text() for text in decided.axes[0].texts)


def gathered(home, method: str = "advfusion_exclude", against: str = "bottleneck") -> GatheredMetric:
    """What notebook 07 would have gathered of the family: a difference, study by study."""
    main = gathered_results([1.0] * 6).main
    values = [one.by("pass_at_1").contrast("advfusion_exclude", "bottleneck") for one in studies(home)]
    own = [
        main.gathered[0].studies[0].model_copy(update={"study": name, "value": c.value, "interval": c.overall_interval})
        for name, c in zip(family_names(), values, strict=True)
    ]
    of = main.gathered[0].model_copy(update={"method": method, "against": against, "studies": own})
    return main.model_copy(update={"gathered": [of]})


def family_names() -> list[str]:
    return [f"target_examples {size}, data.seed {draw}" for size in SIZES for draw in DRAWS]


def test_every_difference_stands_with_its_interval_and_the_studys_own_verdict(home):
    of_metric = gathered(home)
    found = side_by_side.read_studies(
        dict(zip(family_names(), [f"runs/compare/lua-{s}-{d}" for s in SIZES for d in DRAWS], strict=True)),
        {"target_examples": dict.fromkeys(family_names(), 10)},
    )
    lines = side_by_side.difference_table(found, of_metric)
    assert [line["study"] for line in lines] == family_names()
    name = "advfusion_exclude \u2212 bottleneck"
    assert lines[0][name].startswith("+40.0 (+") and lines[0][name].endswith("), better")
    assert lines[5][name].startswith("\u221225.0 (") and lines[5][name].endswith("), worse")
    assert side_by_side.verdict_counts(found, of_metric) == [
        "pass@1: **advfusion_exclude** against **bottleneck** is better in 4, worse in 2 of 6 studies; 6 of these "
        "verdicts cover other seeds."
    ]
    untested = of_metric.model_copy(update={"gathered": [of_metric.gathered[0].model_copy(update={"against": "lora"})]})
    assert side_by_side.verdict_counts(found, untested) == []
    assert side_by_side.difference_table(found, untested)[0][name.replace("bottleneck", "lora")].endswith(")")


def test_the_first_page_of_a_family_shows_scores_and_differences(home):
    compares, levels = family(home, grows)
    run = Run("gather", "over-target_examples", "0123456789", {"compares": compares, "levels": levels}, ())
    assert summary.read_family(run) is None, "nothing is published"
    (home / run.dir).mkdir(parents=True)
    results = gathered_results([4.0, 5.1, 5.9]).model_copy(update={"over": ["target_examples", "data.seed"]})
    (home / run.dir / "gather.json").write_text(results.model_dump_json())
    of_first = Run("compare", "lua", "10-0", {}, ())
    studies_pages = index._study_pages(run, {of_first: "06_compare-lua-10-0.html"})
    content = render("family.html.j2", family=summary.read_family(run), studies=studies_pages)
    page = BeautifulSoup(content, "html.parser")
    (link,) = page.select("li a")
    assert (link["href"], link.get_text()) == ("06_compare-lua-10-0.html", "target_examples 10, data.seed 0")
    assert len(page.select("img")) == 2 and "is better than" in page.select_one(".answer").get_text()
    table = page.select_one("table")
    assert [cell.get_text() for cell in table.select("tbody tr")[0].select("td")] == ["10", "0", "0.0", "10.0", "40.0"]
    other = Run("compare", "lua", "0123456789", {}, ())
    assert summary.read_family(other) is None
