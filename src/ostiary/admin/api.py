"""The FastAPI application behind the door: checks what is asked against models, and describes it all as OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final, NoReturn

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ostiary.admin import page, schema
from ostiary.admin.routes import Route
from ostiary.errors import Refusal

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_LONGEST: Final = 200
_MOST_ERRORS: Final = 20


class Api:
    """Everything that needs FastAPI, built once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._app = FastAPI(
            title="Ostiary admin API",
            version=version("ostiary"),
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            exception_handlers={RequestValidationError: _invalid, HTTPException: _unforeseen},
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self._app.router.route_class = _Route
        for route in routes:
            self._add(route)
        self.schema, described = schema.describe(self._app.openapi(), routes)
        self.page = page.render(described)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check what is asked, and do it; raises Refusal."""
        await self._app(scope, receive, send)  # type: ignore[arg-type]

    def _add(self, route: Route) -> None:
        answer: Callable[..., Any] = getattr(import_module(f"ostiary.admin.{route.module}"), route.function)
        self._app.add_api_route(
            route.full_path,
            answer,
            methods=[route.method],
            status_code=route.status,
            operation_id=f"{route.deed.partition('.')[0]}_{route.function.strip('_')}",
            tags=[route.noun],
            summary=(answer.__doc__ or "").partition("\n")[0],
        )


class _Asked(Request):
    """A request whose body the door has parsed already, more strictly than the framework does."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON of any shape
        return self.scope["ostiary.body"]


class _Route(APIRoute):
    """A route that also refuses what it was not asked to expect."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's own, behind our checks."""
        answer = super().get_route_handler()
        takes_body = self.body_field is not None
        takes_query = bool(self.dependant.query_params)

        async def handle(request: Request) -> Response:
            if not takes_body and request.scope["ostiary.body"] not in (None, {}):
                raise Refusal("invalid_field", "This route takes no body.", param="body")
            if not takes_query and request.scope["query_string"]:
                name = min(request.query_params)
                raise Refusal("invalid_field", "There is no such parameter here.", param=name[:_LONGEST])
            return await answer(_Asked(request.scope, request.receive))

        return handle


async def _invalid(_request: Request, error: Exception) -> NoReturn:
    """What the models refused, field by field; never what was sent, which may be a secret in the wrong place."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    errors = [
        {"field": _field(one["loc"]), "message": str(one["msg"]).removeprefix("Value error, ")[:_LONGEST]}
        for one in error.errors()[:_MOST_ERRORS]
    ]
    first = errors[0]
    raise Refusal("invalid_field", f"{first['field']}: {first['message']}.", errors=errors)


def _field(where: tuple[Any, ...]) -> str:
    """`body`, `query` or `path` go without saying, unless there is nothing else to say."""
    return ".".join(str(part) for part in where[1:])[:_LONGEST] or str(where[0])


async def _unforeseen(_request: Request, error: Exception) -> NoReturn:
    """The door has looked at everything the framework could refuse by itself."""
    raise RuntimeError("the framework refused what the door let in") from error
