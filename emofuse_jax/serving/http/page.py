"""Serves the web page: static files in `web/`, without inline code or anything from the network."""

import functools
import os

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from emofuse_jax.serving.bundle.load import Bundle

WEB_DIR = os.path.join(os.path.dirname(__file__), "web")
"""Directory of the page's files."""
STATIC_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "draw.js": "text/javascript",
    "answers.js": "text/javascript",
    "live.js": "text/javascript",
    "sound.js": "text/javascript",
}
"""Media type of each static file."""
PAGE_ROUTES = ("/", *(f"/{name}" for name in STATIC_FILES))
"""Routes of the page and of its static files."""
RESPONSE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:;"
        " img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Headers of all responses of the page."""


def add_page(app: Starlette, bundle: Bundle, *, token: bool) -> None:
    """Adds the routes of the page to `app`: `/` and its static files, such as `/page.css`.

    The page describes the model of `bundle`; with `token`, it has an input field for the token. Raises
    jinja2.TemplateNotFound if the installation lacks page.html.
    """
    page = HTMLResponse(render(bundle, token=token), headers=RESPONSE_HEADERS)
    app.router.routes.append(Route("/", lambda request: page))
    for name, media_type in STATIC_FILES.items():
        app.router.routes.append(Route(f"/{name}", functools.partial(_serve_file, name, media_type)))


def render(bundle: Bundle, *, token: bool) -> str:
    """Returns the HTML of the page, which describes the model; with `token`, the page has a token field.

    Raises jinja2.TemplateNotFound if the installation lacks page.html.
    """
    loader = jinja2.FileSystemLoader(WEB_DIR)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html")
    metadata = bundle.metadata
    page_options = {"token": token, "classes": bundle.classes, "window": metadata["window"]["seconds"]}
    return template.render(
        name=metadata.get("config", {}).get("name") or "emofuse",
        corpus=metadata["corpus"],
        modalities=" and ".join(metadata["modalities"]),
        intended_use=metadata.get("intended_use", ""),
        limits=metadata.get("limits", ""),
        **page_options,
        needs=page_options,
    )


def _serve_file(name: str, media_type: str, request: Request) -> Response:
    """Returns the response with the content of the file `name` in the folder `web`, as `media_type`.

    `request` is not used. Raises OSError if the file cannot be read.
    """
    with open(os.path.join(WEB_DIR, name), "rb") as file:
        return Response(file.read(), media_type=media_type, headers=RESPONSE_HEADERS)
