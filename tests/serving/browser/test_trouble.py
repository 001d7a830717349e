"""What goes wrong: canceled, busy, stopped, too large, a key; and what must not happen: markup, requests elsewhere."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from serving_page import Visit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]
SENTENCES = ("the lesion in the left lobe", "the lesion in the right lobe", "the cyst")


def call(address: str, path: str, body: bytes = b"") -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} if body[:1] == b"{" else {}
    with urllib.request.urlopen(urllib.request.Request(address + path, body, headers, method="POST")) as answer:
        return dict(json.load(answer))


def test_a_job_is_canceled(visit: Any, series: list[Path]) -> None:
    visit.send(*series)
    visit.type(*SENTENCES)
    visit.press_enter()
    visit.page.click("#cancel")
    visit.page.wait_for_selector("#work", state="hidden")
    assert visit.text(".notice").startswith("Canceled")
    assert not visit.page.is_visible("#results")
    # The button is gone, and the one to ask again has the focus.
    visit.page.wait_for_selector("#submit:focus")
    # and another one can be asked at once
    visit.press_enter()
    visit.page.wait_for_selector("#work-bar[value]")
    visit.page.click("#cancel")
    visit.page.wait_for_selector("#work", state="hidden")


def test_a_full_queue_is_told_and_tried_again(visit: Any, address: str, series: list[Path]) -> None:
    visit.take_example(1)
    visit.type("the cyst")
    image = call(address, "/images?more=true", series[0].read_bytes())["image_id"]
    for path in series[1:]:
        call(address, f"/images/{image}/files", path.read_bytes())
    call(address, f"/images/{image}/complete")
    asked = json.dumps({"image_id": image, "sentences": SENTENCES}).encode()
    # one runs, two wait
    jobs = [call(address, "/jobs", asked)["job_id"] for _ in range(3)]
    visit.press_enter()
    visit.page.wait_for_selector("text=The server is busy")
    assert "Its queue is full. It asks to wait" in visit.text(".notice")
    for job in jobs:
        call(address, f"/jobs/{job}/cancel")
    for job in jobs:
        urllib.request.urlopen(f"{address}/jobs/{job}/events").read()
    visit.page.click("text=Try again")
    visit.page.wait_for_selector("#results", state="visible")


def test_a_server_that_stopped_is_told_and_tried_again(visit: Any) -> None:
    visit.take_example(1)
    visit.page.route("**/jobs", lambda route: route.abort())
    visit.ask("the cyst")
    assert visit.text(".notice").startswith("The server does not answer")
    visit.page.unroute("**/jobs")
    visit.page.click("text=Try again")
    visit.page.wait_for_selector("#results", state="visible")


def test_a_connection_that_is_lost_is_told(visit: Any) -> None:
    visit.take_example(1)
    lines = '{"done": 0, "total": 1}\n'
    visit.page.route("**/events", lambda route: route.fulfill(body=lines, content_type="application/x-ndjson"))
    visit.ask("the cyst")
    assert visit.text(".notice").startswith("The server does not answer")
    assert not visit.page.is_visible("#results")


def test_an_upload_that_is_too_large_is_not_sent(visit: Any, tmp_path: Path) -> None:
    with (tmp_path / "large.dcm").open("wb") as file:
        file.truncate(513 * 2**20)
    visit.page.set_input_files("#files", str(tmp_path / "large.dcm"))
    assert "513.0 MiB, over the server's limit of 512.0 MiB" in visit.text(".notice")
    assert not [url for url in visit.requests if "/images" in url]


def test_a_refused_upload_is_told(visit: Any, series: list[Path]) -> None:
    error = json.dumps({"error": "the file is over the limit of 512 MiB; send one series only", "kind": "RequestError"})
    visit.page.route("**/images?more=true", lambda route: route.fulfill(status=413, body=error))
    visit.page.set_input_files("#files", str(series[0]))
    visit.page.wait_for_selector(".notice")
    assert "over the limit of 512 MiB" in visit.text(".notice")
    assert visit.page.is_visible("#drop")


def test_files_that_are_no_images_are_left_out(visit: Any, series: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    visit.send(tmp_path / "notes.txt", *series[:2])
    assert visit.text("#about-text").startswith("2 slices")
    assert "1 file left out" in visit.text("#about-notes")


def test_markup_stays_text(visit: Any) -> None:
    visit.take_example(1)
    markup = "<img src=x onerror=window.hacked=1>"
    visit.ask(markup)
    assert visit.text(".notice").startswith("Not understood")
    assert visit.page.locator(".mirror mark").all_text_contents() == markup.split()
    # Punctuation is no word, so this one is asked, and stands in the answer.
    visit.ask("the cyst <>")
    assert "the cyst <>" in visit.text("#summary")
    assert visit.page.locator("img").count() == 0
    assert visit.page.evaluate("window.hacked") is None


def test_two_tabs_have_answers_of_their_own(visit: Any, address: str) -> None:
    other = Visit(visit.page.context.new_page(), address).open()
    visit.take_example(1)
    other.take_example(2)
    for one in (visit, other):
        one.type("the cyst")
        one.press_enter()
    for one in (visit, other):
        one.page.wait_for_selector("#results", state="visible")
    assert visit.text("#table") != other.text("#table")
    images = [{url.split("/images/")[1][:32] for url in one.requests if "/images/" in url} for one in (visit, other)]
    assert images[0].isdisjoint(images[1])
    other.page.close()
    assert visit.page.is_visible("#results")


def test_the_key_is_asked_for_and_kept_in_memory_only(visit: Any) -> None:
    def guarded(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer 0123456789abcdef":
            route.continue_()
        else:
            route.fulfill(status=401, body='{"error": "this server needs its API key", "kind": "KeyError"}')

    visit.page.route("**/capabilities", guarded)
    visit.page.reload()
    for key in ("wrong", "0123456789abcdef"):
        visit.page.fill("#key", key)
        visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#examples button:nth-of-type(3)")
    assert not visit.page.is_visible("#key-dialog")
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert visit.page.evaluate(kept) == '[{},{},""]'


def test_the_policy_forbids_everything_foreign(visit: Any) -> None:
    tried = """async () => {
      const refused = [];
      addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      await fetch("https://example.org/").catch(() => {});
      document.head.append(Object.assign(document.createElement("style"), { textContent: "p{}" }));
      try { document.body.innerHTML = "<p>"; } catch { refused.push("markup"); }
      await new Promise((resolve) => setTimeout(resolve, 50));
      return refused;
    }"""
    refused = visit.page.evaluate(tried)
    assert {"connect-src", "style-src-elem", "markup"} <= set(refused)
    # They were provoked.
    visit.complaints.clear()
    visit.requests.clear()
