"""The rating page as a rater uses it, in chromium: keys, back, a reload in between, the file; nothing loads or runs."""

from __future__ import annotations

import json

import pytest

from studykit import cli
from studykit.evaluation.preferences import measure_ratings
from studykit.evaluation.ratings import PageKey
from studykit.evaluation.scores import read_scores
from tests.made_study import evaluated

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)> \u202e & \x00 \ud800"


def text(method: str, seed: int | None, n: int) -> str:
    """Completions of known quality; all methods but the base write the same for every sixth row."""
    if method == "base":
        return ("", "  \n", f"{HOSTILE} {n}")[n % 3]
    return "return 0 -- equal" if n % 6 == 0 else f"local {method[0]} = {seed} -- {'good' * (method == 'lora')} {n}"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study in a project of its own, with finished evaluations."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return evaluated(tmp_path, text, rows=24, prompt=f"a task {HOSTILE}")


class Rater:
    """A person at the page: what is requested and logged is kept."""

    def __init__(self, browser, file, **options):
        self.context = browser.new_context(**options)
        self.page, self.trouble = self.context.new_page(), []
        self.page.on("request", lambda request: self.trouble.append(request.url))
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.open = lambda: (self.page.goto(file.as_uri()), self.page.wait_for_selector("html[data-ready]"))
        self.open()
        self.trouble.clear()

    def begin(self, name):
        self.page.fill("input", name)
        self.page.keyboard.press("Enter")

    def shown(self):
        """The two texts, the first of which stands on the left or above."""
        return [self.page.text_content(f".pair section:nth-child({n}) pre") for n in (1, 2)]

    def answered(self):
        return int(self.page.text_content("header [role=status]").split()[0])

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def save(self):
        with self.page.expect_download() as download:
            self.page.click("text=Save my answers")
        return download.value


def rate(rater: Rater, pairs: int) -> None:
    """Prefers the text that says good, then any that is written, else sees no difference."""
    for _ in range(pairs):
        marks = [("good" in text) * 2 + ("local" in text) for text in rater.shown()]
        rater.press("0" if marks[0] == marks[1] else "1" if marks[0] > marks[1] else "2")


@pytest.fixture
def page_file(study, tmp_path, capsys):
    assert cli.main(["rate", "tiny", "--pairs", "20"]) == 0
    said = capsys.readouterr().out
    (file,) = tmp_path.glob("ratings/tiny/page-*.html")
    assert said.startswith(f"ratings/tiny/{file.name}: 20 pairs of 3 methods, and of these 2 pairs a second time. ")
    return file


def test_all_pairs_are_rated_by_keys_with_a_reload_and_read_back(browser, study, page_file, tmp_path, capsys):
    rater = Rater(browser, page_file)
    rater.begin("alice")
    rate(rater, 9)
    before = rater.shown()
    rater.press("ArrowLeft", "Backspace")
    assert rater.shown() != before and rater.page.locator("[aria-pressed=true]").count() == 1
    rater.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert rater.shown() == before and rater.answered() == 9, "no key leads past a pair without an answer"
    rater.page.reload()
    rater.page.click("text=alice (9 of 22)")
    assert rater.shown() == before, "the order is the rater's own"
    rate(rater, 13)
    assert "All 22 pairs are answered" in rater.page.text_content("h1")
    download = rater.save()
    assert rater.trouble == [page_file.as_uri()], "one request: the reload"
    saved = tmp_path / download.suggested_filename
    download.save_as(saved)
    assert cli.main(["rate", "tiny", "--read", saved.name]) == 0
    assert "22 answers of alice" in capsys.readouterr().out
    runs = study.result.params["evaluations"]
    scores = {method: read_scores(run) for method, run in runs.items()}
    found = measure_ratings(study.result.params["ratings"], scores, runs, "bottleneck", 0.95, 500)
    shares = {row.method: row.share for row in found.methods}
    assert shares["lora"] > 75 > shares["bottleneck"] > shares["base"]
    (alice,) = found.raters
    assert (alice.pairs, alice.repeated, alice.consistent) == (20, 2, 2)
    rater.context.close()


def test_each_rater_has_an_order_and_sides_of_their_own(browser, page_file):
    first, saved = [], []
    for name in ("alice", "bob", "carol", "dan", "eve"):
        rater = Rater(browser, page_file)
        rater.begin(name)
        first.append(tuple(rater.shown()))
        rate(rater, 22)
        saved.append(json.loads(rater.save().path().read_text()))
        rater.context.close()
    assert len(set(first)) > 1
    key = PageKey.model_validate_json(
        page_file.with_name(page_file.name.replace("page", "key")[:-4] + "json").read_text()
    )
    sides = set()
    for one in saved:
        left = {answer["pair"]: answer["left"] for answer in one["answers"]}
        (own,) = {left[pair.id] for pair in key.pairs}
        sides.add(own)
        assert all(left[again] != left[of] for again, of in key.repeats.items()), "sides are exchanged"
        order = [answer["pair"] for answer in one["answers"]]
        assert all(order.index(again) - order.index(of) > 6 for again, of in key.repeats.items()), "not soon again"
    assert sides == {"first", "second"}


def test_no_method_study_or_run_can_be_read_in_the_page(page_file):
    content = page_file.read_text()
    assert not any(word in content for word in ("lora", "bottleneck", "tiny", "evaluate/", "seed", '"r1"'))


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (400, "dark")])
def test_hostile_texts_are_texts_and_the_page_fits(browser, page_file, width, scheme):
    rater = Rater(browser, page_file, viewport={"width": width, "height": 800}, color_scheme=scheme)
    rater.begin(HOSTILE[:40])
    seen = ""
    for _ in range(22):
        seen += "".join(rater.shown()) + rater.page.text_content(".task pre")
        assert rater.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        rater.press("0")
    assert "<img src=x onerror=alert(1)>" in seen and "(empty)" in seen and "(only white space)" in seen
    assert rater.page.title() == "Compare Lua programs" and rater.page.locator("img").count() == 0
    assert rater.trouble == []
    rater.context.close()


def test_a_browser_that_keeps_nothing_says_so(browser, page_file):
    rater = Rater(browser, page_file)
    rater.page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    rater.begin("alice")
    rate(rater, 2)
    assert "save them before you close the page" in rater.page.text_content("header") and rater.answered() == 2
    rater.context.close()
