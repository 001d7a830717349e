"""The page's files as they are served; how they work together is tested in a browser (``browser/``)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lsms_rt.serving import routes_page
from lsms_rt.serving.replies import RequestError, on_request_error

fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed; pip install 'lsms-rt[serve]'")
testclient = pytest.importorskip("fastapi.testclient")
BUNDLE = routes_page.PAGE.parent / "bundle"


@pytest.fixture(scope="module")
def client():
    app = fastapi.FastAPI()
    app.include_router(routes_page.router)
    app.add_exception_handler(RequestError, on_request_error)
    return testclient.TestClient(app)


def test_a_clone_says_how_to_build_the_page(client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(routes_page, "VIEWER", tmp_path / "niivue.js")
    answer = client.get("/")
    assert answer.status_code == 503
    assert "make page" in answer.text
    # What was installed before does not get it by itself.
    assert "pip install" in answer.text


def test_the_page_may_load_nothing_foreign(client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_page, "VIEWER", routes_page.PAGE / "index.html")
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    # and it holds no script, style or handler of its own, which the policy would refuse
    assert not re.findall(r"<style|\son\w+=|\sstyle=|<script(?! type=\"module\" src=\"/page/)", answer.text)
    assert re.findall(r"https?://", answer.text) == []


@pytest.mark.parametrize(
    "path", ["../app.py", "%2e%2e/app.py", "examples/../../app.py", "examples//etc/passwd", "none.js"]
)
def test_no_name_leads_elsewhere(client, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


@pytest.mark.parametrize(
    ("name", "kind"),
    [("main.js", "text/javascript"), ("style.css", "text/css"), ("examples/phantom_1.dcm", "application/dicom")],
)
def test_files_have_their_types(client, name: str, kind: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)


def test_modules_import_what_there_is() -> None:
    for path in routes_page.PAGE.glob("*.js"):
        text = path.read_text()
        for names, module in re.findall(r"import \{([^}]*)\} from \"(.*)\";", text):
            if module.startswith("./vendor/"):
                # one module knows the viewer's library
                assert path.name == "viewer.js"
                exported = (BUNDLE / "niivue.js").read_text()
            else:
                exported = (path.parent / module).read_text()
            for name in names.replace(" ", "").split(","):
                assert re.search(rf"export .*\b{name}\b", exported), f"{path.name}: {name} of {module}"
        # User text is set as text only.
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage", text)


def test_the_viewer_is_pinned() -> None:
    locked = json.loads((BUNDLE / "package-lock.json").read_text())["packages"]
    asked = json.loads((BUNDLE / "package.json").read_text())
    for name, version in (asked["dependencies"] | asked["devDependencies"]).items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in one for name, one in locked.items() if name)
