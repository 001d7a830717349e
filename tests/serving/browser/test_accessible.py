"""Everything is said in HTML, and the page is used by keyboard: axe's rules, focus, and what is always in view."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]


def serious(visit: Any, *rules: str) -> list[str]:
    """Return what axe finds that is serious or critical: of all rules, or of some."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    options = {"runOnly": list(rules)} if rules else {}
    found = axe.Axe().run(visit.page, options=options).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def test_axe_finds_nothing_serious(visit: Any) -> None:
    visit.page.click("#words > summary")
    visit.page.click("#groups summary:has-text('Type')")
    visit.take_example(1)
    visit.ask("the lesion")
    assert visit.page.is_visible("#table")
    # with an answer, and a sentence that is not understood
    visit.type("the lesion", "no lesion")
    visit.page.wait_for_selector(".mirror mark")
    assert serious(visit) == []
    visit.page.emulate_media(color_scheme="dark")
    assert serious(visit, "color-contrast") == []


def test_the_page_is_used_by_keyboard(visit: Any) -> None:
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
    seen = []
    for _ in range(14):
        visit.page.keyboard.press("Tab")
        seen.append(visit.page.evaluate(focused))
    order = ["Skip to the sentences", "API", "Choose files", "Choose a folder", "phantom 1", "Sentence 1", "Ask"]
    assert [name for name in seen if name in order] == order
    visit.page.focus("#examples button")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#about", state="visible")
    # The button is gone, and the next step has the focus.
    visit.page.wait_for_selector("[aria-label='Sentence 1']:focus")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#results", state="visible")
    assert visit.page.text_content("#live").startswith("Found in 1 slice")


def test_a_hidden_element_has_the_focus_no_more(visit: Any) -> None:
    """At once: the browser itself takes it away at its next frame, after which the page does not look again."""
    found = visit.page.evaluate(
        "async () => { const { focusIsGone, show } = await import(new URL('page/dom.js', location.href));"
        " document.querySelector('#examples button').focus(); const before = focusIsGone();"
        " show(false, 'drop'); return [before, focusIsGone()]; }"
    )
    assert found == [False, True]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_warning_is_always_in_view(visit: Any, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 700})
    visit.take_example(1)
    visit.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    box = visit.page.locator(".warning").bounding_box()
    assert visit.text(".warning") == "Research software, not a medical device"
    assert 0 <= box["y"] <= 700 - box["height"]
    # Nothing is wider than the window.
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
