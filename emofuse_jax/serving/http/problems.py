"""Errors as problem documents (RFC 9457); `field` names the invalid field of a request."""

import http
from collections.abc import Mapping
from typing import NotRequired, TypedDict

from fastapi import Response
from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class ProblemFields(TypedDict):
    """JSON object of a problem document."""

    type: str
    title: str
    status: int
    detail: str
    field: NotRequired[str]
    """Invalid field of the request; absent if there is none."""


class Problem(Exception):
    """Exception that becomes an error response.

    Args:
      status: HTTP status.
      title: kind of problem.
      detail: description of this occurrence.
      field: invalid field of the request; "" if none.
      headers: additional HTTP headers.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        field: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.headers = status, headers or {}
        self.body: ProblemFields = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": detail,
        }
        if field:
            self.body["field"] = field

    def response(self) -> Response:
        """Returns the problem as a JSON response with its status and headers.

        The body has `type`, `title`, `status`, `detail` and, if a field of the request is invalid, `field`;
        its media type is application/problem+json.
        """
        return JSONResponse(self.body, self.status, self.headers, media_type=MEDIA_TYPE)


def status_response(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Returns the response with a problem document for an HTTP status.

    `title` and `detail` of the document are the standard phrase of the status, such as "Not Found". `headers`
    are additional HTTP headers. Raises ValueError if `status` is not a known HTTP status.
    """
    phrase = http.HTTPStatus(status).phrase
    return Problem(status, phrase, phrase, headers=headers).response()


def invalid_field(field: str, detail: str) -> Problem:
    """Returns the Problem 422 for an invalid field of a request; the caller raises it.

    `field` is the name of the field, `detail` says what is wrong with it.
    """
    return Problem(422, "Unusable request", detail, field=field or "''")  # the name of a field may be empty


def server_busy(detail: str, *, retry_after_seconds: int = 1) -> Problem:
    """Returns the Problem 503 with a Retry-After header of `retry_after_seconds`; the caller raises it.

    `detail` says why the server is busy, and what to do.
    """
    return Problem(503, "Busy", detail, headers={"Retry-After": str(retry_after_seconds)})
