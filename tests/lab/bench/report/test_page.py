"""The page in a real browser: everything on it works, it logs no error, and it asks no network for anything."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from attempts import answers, attempt, view_of_attempts
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tale_core import StoreError
from tale_lab.bench.report import report_of, write_page
from tale_lab.bench.report.output import embedded, to_page

NASTY = (
    "</script><script>document.title='taken over'</script>"
    "<img src='https://example.com/x.png' onerror=\"throw 1\">"
)
INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = str(own) if own.exists() else next(filter(None, map(shutil.which, INSTALLED)), None)
        if found is None:
            pytest.skip(
                "no browser here; install one: apt-get install chromium, or playwright install chromium"
            )
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


def views():
    rights = [True, False, True, True]
    vanilla = answers("vanilla", rights, [300, 200, 250, 280], text=f"Let us see. {NASTY} Answer: 1")
    tale = answers("tale", [True, True, False, True], [60, 70, 50, 65], estimate=9)
    by_method = {"vanilla": vanilla, "tale": tale, "direct": answers("direct", [False] * 3, [4, 5, 6])}
    first = view_of_attempts(by_method, failed={"direct": [3]}, data="gsm8k.jsonl", model=f"m {NASTY}")
    return first, view_of_attempts({"vanilla": [attempt("vanilla", 0)]}, model="other", data="gsm8k.jsonl")


@pytest.fixture
def page(browser: Browser, tmp_path: Path):
    """The open page; whatever it did wrong by the end of the test fails the test."""
    write_page(tmp_path / "page.html", report_of(views()))
    page = browser.new_page()
    wrong: list[str] = []
    address = (tmp_path / "page.html").as_uri()
    page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda request: None if request.url in {address, "data:,"} else wrong.append(request.url)
    )
    page.goto(address, wait_until="load")
    yield page
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")  # all is drawn
    page.close()
    assert wrong == []


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def test_the_figures_sentences_and_plots_are_there(page):
    assert texts(page, "#figures tbody td:first-child") == ["vanilla", "tale", "direct"]
    assert "saves" in page.inner_text("#sentences")
    assert texts(page, "#figures .badge") == ["not shown", "not shown"]
    assert page.locator("#frontier .point").count() == 3
    assert texts_of_plot(page) == {"vanilla", "tale", "direct"}
    assert page.locator("#tokens .boxlayer .trace").count() == 3
    assert "GPT-4o-mini" in page.inner_text("#published")
    assert "other on gsm8k.jsonl, compared with" in page.inner_text("#comparisons")
    assert "Errors are the provider's" in page.inner_text("#notes")


def texts_of_plot(page: Page) -> set[str]:
    return {text for text in page.locator("#frontier .textpoint").all_text_contents() if text}


def test_texts_of_models_stay_texts(page):
    assert page.title() == f"m {NASTY} on gsm8k.jsonl; other on gsm8k.jsonl"
    assert page.inner_text("#title") == f"m {NASTY} on gsm8k.jsonl"
    page.locator("#questions summary").first.click()
    assert NASTY in page.locator(".answer pre").first.inner_text()
    assert page.locator("img").count() == 0


def test_a_click_on_a_column_sorts_by_it(page):
    page.get_by_role("button", name="output").click()
    assert texts(page, "#figures tbody td:first-child") == ["vanilla", "tale", "direct"]
    page.get_by_role("button", name="output").click()
    assert texts(page, "#figures tbody td:first-child") == ["direct", "tale", "vanilla"]


def test_questions_are_found_by_their_words_and_outcome(page):
    def found():
        return texts(page, "#questions summary .text")

    assert len(found()) == 4
    page.fill("#search", "question 2")
    assert found() == ["question 2?"]
    page.fill("#search", "")
    page.select_option("#outcome", "disagree")
    assert len(found()) == 4
    page.get_by_label("direct", exact=True).uncheck()
    assert found() == ["question 1?", "question 2?"]
    page.select_option("#outcome", "right")
    assert found() == ["question 0?", "question 3?"]
    page.get_by_label("direct", exact=True).check()
    page.select_option("#outcome", "errors")
    assert found() == ["question 3?"]
    assert page.inner_text("#count") == "1 of 4 questions"


def test_a_question_opens_to_all_answers_side_by_side(page):
    page.locator("#questions summary").nth(3).click()
    assert texts(page, ".answer h3") == ["vanilla", "tale", "direct"]
    assert texts(page, ".answer .badge") == ["right", "right", "error"]
    assert "RateLimitError: busy" in page.locator(".answer pre").nth(2).inner_text()
    assert "74 output tokens · 9 of them the estimator's" in page.locator(".answer .quiet").nth(1).inner_text()


def test_another_benchmark_can_be_chosen(page):
    assert page.locator("#section").is_visible()
    page.select_option("#section", "1")
    assert page.inner_text("#title") == "other on gsm8k.jsonl"
    assert texts(page, "#figures tbody td:first-child") == ["vanilla"]


def test_the_frontier_can_be_drawn_for_another_spend(page):
    page.select_option("#measure", "1")
    assert page.locator("#frontier .xtitle").text_content() == "mean input and output tokens per question"
    assert page.locator("#frontier .point").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_color_scheme(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground, ink = page.evaluate(
        "() => [getComputedStyle(document.body)].flatMap((style) => [style.backgroundColor, style.color])"
    )
    # The plots are drawn again a while after, and nothing says when.
    expect(page.locator("#frontier .xtitle")).to_have_css("fill", ink, timeout=60_000)
    assert [bright(ground), bright(ink)] == [scheme == "light", scheme == "dark"]


def bright(color: str) -> bool:
    return sum(map(int, re.findall(r"\d+", color)[:3])) > 3 * 128


def test_a_narrow_screen_scrolls_the_table_and_not_the_page(page):
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


def test_data_cannot_end_its_script():
    told = embedded({"text": f"{NASTY} \u2028 & <!--"})
    assert not set("<>&\u2028") & set(told)
    assert json.loads(told) == {"text": f"{NASTY} \u2028 & <!--"}


def test_placeholders_in_texts_are_left_alone():
    view = view_of_attempts({"vanilla": [attempt("vanilla", 0, text="{{script}} {{data}}")]})
    assert to_page(report_of([view])).count("{{script}} {{data}}") == 1


def test_a_page_that_is_too_large_says_what_is_left_out(monkeypatch):
    monkeypatch.setattr("tale_lab.bench.report.output._MOST_TEXT", 60)
    view = view_of_attempts({"vanilla": answers("vanilla", [True] * 5, [9] * 5)})
    assert '"left_out": 2' in to_page(report_of([view]))


def test_a_question_that_no_method_answered_is_listed_with_its_errors():
    view = view_of_attempts({"vanilla": [attempt("vanilla", 0)]}, questions=2, failed={"vanilla": [1]})
    page = to_page(report_of([view]))
    assert "question 1, which no method has answered yet" in page
    assert "RateLimitError: busy" in page


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="cannot write"):
        write_page(tmp_path / "no" / "page.html", report_of(views()[1:]))
