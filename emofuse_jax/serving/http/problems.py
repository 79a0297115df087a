"""Errors as problem documents (RFC 9457); `field` names what is wrong with a request."""

import http

from fastapi import Response
from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error: status, title, and what in particular."""

    def __init__(self, status: int, title: str, detail: str, *, field: str = "", headers: dict | None = None):
        super().__init__(detail)
        self.status, self.headers = status, headers or {}
        self.body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        if field:
            self.body["field"] = field

    def response(self) -> Response:
        """As JSON."""
        return JSONResponse(self.body, self.status, self.headers, media_type=MEDIA_TYPE)


def status_response(status: int, headers: dict | None = None) -> Response:
    """An error that has nothing to add to its status."""
    phrase = http.HTTPStatus(status).phrase
    return Problem(status, phrase, phrase, headers=headers).response()


def invalid_field(field: str, detail: str) -> Problem:
    """A request whose field can't be used."""
    return Problem(422, "Unusable request", detail, field=field or "''")  # a name may be empty


def server_busy(detail: str, *, retry_after_seconds: int = 1) -> Problem:
    """Try again after so many seconds."""
    return Problem(503, "Busy", detail, headers={"Retry-After": str(retry_after_seconds)})
