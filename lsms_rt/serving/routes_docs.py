"""``/docs``: all routes on one page, made from their OpenAPI description; usual pages load scripts from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#eee;padding:.1em .3em}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.1em 1em .1em 0}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}code{background:#333}a{color:#9cf}}"
)


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Return the page."""
    described = request.app.openapi()
    parts = "".join(_parts(described))
    title = escape(f"{described['info']['title']} {described['info']['version']}")
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<main><h1>{title}</h1><p>{escape(described['info']['description'])}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a>. Errors are JSON with <code>error</code>, what '
        f"happened and what to do, and <code>kind</code>.</p>{parts}</main></html>"
    )


def _parts(described: dict[str, Any]) -> Iterator[str]:
    group = ""
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            tag = (route.get("tags") or [""])[0]
            if tag != group:
                group = tag
                yield f"<h2>{escape(tag)}</h2>"
            yield f"<h3><code>{method.upper()} {escape(path)}</code></h3>"
            yield f"<p>{escape(route.get('description', route['summary']))}</p>"
            rows = "".join(_row(one) for one in route.get("parameters", ()) if one["in"] == "query")
            if rows:
                yield f"<table><tr><th>parameter</th><th>type</th><th>if left out</th></tr>{rows}</table>"


def _row(one: dict[str, Any]) -> str:
    schema = one["schema"]
    kind = schema.get("type") or " or ".join(part.get("type", "") for part in schema.get("anyOf", ()))
    return (
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(kind)}</td><td>{schema.get('default')}</td></tr>"
    )
