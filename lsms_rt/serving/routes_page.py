"""The page at ``/``, its files, and the bundled examples that it offers."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from lsms_rt.data import DATA

from .replies import bad

router = APIRouter(include_in_schema=False)
PAGE = Path(__file__).parent / "page"
# NiiVue, which `make page` puts there: a clone has none, a wheel does.
VIEWER = PAGE / "vendor" / "niivue.js"
EXAMPLES = DATA / "examples"
# By the endings of files, since a machine's own table may call JavaScript plain text.
TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain",
    ".json": "application/json", ".dcm": "application/dicom", ".png": "image/png",
}  # fmt: skip
# Scripts and styles are files of this server; pictures may be drawn by scripts, too (NiiVue's font, files to save).
# No string becomes markup or a script.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
NOT_BUILT = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>lsms-rt</title><h1>lsms-rt</h1>"
    "<p>This was installed from a clone whose page is not built. There, run <code>make page</code> (it needs npm) and "
    "<code>pip install '.[serve]'</code>, and start the server again.</p>"
    "<p>Everything else works: <a href=/docs>the API</a>.</p><p>Research software, not a medical device.</p></html>"
)


@router.get("/")
def page() -> Response:
    """The page, or how to build it."""
    if not VIEWER.is_file():
        return HTMLResponse(NOT_BUILT, 503)
    return FileResponse(PAGE / "index.html", media_type="text/html", headers={"Content-Security-Policy": POLICY})


@router.get("/page/{name:path}")
def file(name: str) -> Response:
    """A file of the page, or an example."""
    folder, name = (EXAMPLES, name.removeprefix("examples/")) if name.startswith("examples/") else (PAGE, name)
    # Looked up in a list of what there is, so that no name leads elsewhere.
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in TYPES}
    if name not in files:
        raise bad("the page has no such file", 404)
    return FileResponse(files[name], media_type=TYPES[files[name].suffix])
