"""Every error as RFC 9457 (rule O3)."""

from starlette.responses import JSONResponse


class Problem(Exception):
    def __init__(self, status: int, name: str, detail: str, headers: dict[str, str] | None = None, **more: object) -> None:
        self.status, self.headers = status, headers
        self.body = {"type": f"/problems/{name}", "title": name.replace("-", " "), "status": status, "detail": detail, **more}

    @classmethod
    def field(cls, name: str, detail: str) -> "Problem":
        return cls(400, "invalid-field", detail, field=name)

    @classmethod
    def payload_too_large(cls, bytes_max: int) -> "Problem":
        return cls(413, "too-large", f"the payload is over the limit of {bytes_max} bytes; send less")

    @classmethod
    def unavailable(cls, name: str, detail: str) -> "Problem":
        return cls(503, name, f"{detail}; nothing was acknowledged; try again after the time in Retry-After", {"retry-after": "1"})

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers, media_type="application/problem+json")
