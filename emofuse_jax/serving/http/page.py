"""The page of a server: static files beside this one, nothing from the network, no inline code."""

import functools
import os

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from emofuse_jax.serving.bundle.load import Bundle

FOLDER = os.path.join(os.path.dirname(__file__), "web")
FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "draw.js": "text/javascript",
    "answers.js": "text/javascript",
    "live.js": "text/javascript",
    "sound.js": "text/javascript",
}
PAGE = ("/", *(f"/{name}" for name in FILES))
"""Its routes."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:;"
        " img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: Starlette, bundle: Bundle, *, token: bool) -> None:
    """Adds the page; with `token` it asks for one."""
    page = HTMLResponse(render(bundle, token=token), headers=HEADERS)
    app.router.routes.append(Route("/", lambda request: page))
    for name, kind in FILES.items():
        app.router.routes.append(Route(f"/{name}", functools.partial(_file, name, kind)))


def render(bundle: Bundle, *, token: bool) -> str:
    """The HTML: what the model is, and its limits."""
    loader = jinja2.FileSystemLoader(FOLDER)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html")
    about = bundle.metadata
    needs = {"token": token, "classes": bundle.classes, "window": about["window"]["seconds"]}
    return template.render(
        name=about.get("config", {}).get("name") or "emofuse",
        corpus=about["corpus"],
        modalities=" and ".join(about["modalities"]),
        intended_use=about.get("intended_use", ""),
        limits=about.get("limits", ""),
        **needs,
        needs=needs,
    )


def _file(name: str, kind: str, request: Request) -> Response:
    with open(os.path.join(FOLDER, name), "rb") as file:
        return Response(file.read(), media_type=kind, headers=HEADERS)
