"""The one table of routes: everything that is known about a call before it comes.

`@route(...)` on a handler puts it there; the server, the OpenAPI document and the matrix of the tests are made of it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from .names import check_full_id, check_name
from .problems import PROBLEMS, Problem
from .query import TextReader
from .reading import JsonReader
from .scopes import ANY_CREDENTIAL, PUBLIC, SCOPES

if TYPE_CHECKING:
    from .answer import Answer, Stream
    from .request import Request

__all__ = ["BEARERS", "EVENT_STREAM", "TABLE", "Handler", "Route", "RouteError", "Table", "route"]

Handler = Callable[["Request"], Awaitable["Answer | Stream"]]
H = TypeVar("H", bound=Callable[..., Awaitable[Any]])
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
GuardMode = Literal["refuse", "redact"]

BODY_BYTES_MAX: Final = 256 * 1024
BEARERS: Final = frozenset({"key", "agent", "session"})
"""Kinds of credentials that a route takes unless it says otherwise."""


class EVENT_STREAM:
    """In `answers`: a stream of server-sent events instead of a Struct."""


class RouteError(Exception):
    """The table of routes is wrong: found at import or at start, never while serving."""


class _Empty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a call that takes none: nothing, or `{}`."""


class _NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query of a call that takes none."""


CONVERTERS: Final[dict[str, Callable[[str, str], str]]] = {"name": check_name, "full_id": check_full_id}
"""How a `{part:converter}` of a path is checked."""

_PART = re.compile(r"\{([a-z_]+):([a-z_]+)\}")
_PATH = re.compile(r"(/|(/([A-Za-z0-9._:-]+|\{[a-z_]+:[a-z_]+\}))+)")


class Route:
    """One call: method and path, who may, what it takes, what it answers, what can go wrong."""

    def __init__(
        self,
        method: Method,
        path: str,
        handler: Handler,
        *,
        scope: str | Sequence[str],
        agents: bool = False,
        bearers: Sequence[str] | None = None,
        optional_session: bool = False,
        csrf: bool = True,
        rate: str | None = "read",
        body: Any = None,
        form: bool = False,
        query: Any = None,
        answers: Mapping[int, Any] | None = None,
        problems: Sequence[str] = (),
        guard: GuardMode | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
        summary: str = "",
        description: str = "",
        tags: Sequence[str] = (),
        examples: Mapping[str | int, Any] | None = None,
        links: Mapping[str, Any] | None = None,
        etag: bool = False,
        if_match: bool = False,
        idempotent: bool = False,
        streams: bool = False,
        operation_id: str | None = None,
        documented: bool = True,
    ) -> None:
        self.method, self.path, self.handler = method, path, handler
        self.scopes = (scope,) if isinstance(scope, str) else tuple(scope)
        self.agents = agents
        self.bearers = BEARERS if bearers is None else frozenset(bearers)
        self.optional_session, self.csrf = optional_session, csrf
        self.rate = rate
        self.body, self.form, self.query = body, form, query
        self.answers: Mapping[int, Any] = {200: None} if answers is None else dict(answers)
        self.problems = tuple(problems)
        self.guard = guard
        self.body_bytes_max = body_bytes_max
        self.summary, self.description, self.tags = summary, description, tuple(tags)
        self.examples: dict[str | int, Any] = dict(examples or {})
        self.links = dict(links or {})
        self.etag, self.if_match, self.idempotent = etag, if_match, idempotent
        self.streams = streams
        """Whether it may answer 200 with a stream of server-sent events instead, when it is asked to."""
        self.operation_id: str = operation_id or str(getattr(handler, "__name__", "call"))
        self.documented = documented
        self._check()

        self.parts: tuple[tuple[str, str], ...] = tuple(_PART.findall(path))
        """Name and converter of each variable part of the path."""
        self.converters = {name: CONVERTERS[kind] for name, kind in self.parts}
        self.template = _PART.sub(r"{\1}", path)
        """The path as OpenAPI, logs and metrics name it: `/api/queue/jobs/{job_id}`."""
        self.litestar_path = _PART.sub(r"{\1:str}", path)
        self.shape = _PART.sub("{}", path)
        self.body_reader: JsonReader[Any] = JsonReader(body if body is not None and not form else _Empty)
        self.form_reader: TextReader[Any] | None = TextReader(body, where="") if form else None
        self.query_reader: TextReader[Any] = TextReader(query or _NoQuery)
        self._check_examples()
        self.empty_body_allowed = body is None or (not form and _may_be_empty(body))

    @property
    def public(self) -> bool:
        """Whether nobody is asked who they are."""
        return self.scopes == (PUBLIC,)

    @property
    def mutates(self) -> bool:
        """Whether it changes something, so that a browser must prove where it comes from."""
        return self.method != "GET"

    def lets(self, kind: str, may: Callable[[str], bool]) -> bool:
        """Whether a caller of this kind, whose scopes `may` answers for, may call it."""
        if self.scopes == (ANY_CREDENTIAL,) or (self.agents and kind == "agent"):
            return True
        if kind not in BEARERS:  # registration and renewal: where a route takes them at all, they suffice
            return True
        return any(may(scope) for scope in self.scopes)

    def __repr__(self) -> str:
        return f"{self.method} {self.template}"

    def _check(self) -> None:
        where = f"{self.method} {self.path}"
        if not _PATH.fullmatch(self.path):
            raise RouteError(f"{where}: not a path the router can hold")
        if not self.scopes:
            raise RouteError(f"{where}: names no scope; say PUBLIC or ANY_CREDENTIAL when that is meant")
        for scope in self.scopes:
            if scope not in SCOPES and not (scope in (PUBLIC, ANY_CREDENTIAL) and len(self.scopes) == 1):
                raise RouteError(f"{where}: {scope!r} is not a scope")
        for name, kind in _PART.findall(self.path):
            if kind not in CONVERTERS:
                raise RouteError(f"{where}: {{{name}:{kind}}} names no converter; there are {', '.join(CONVERTERS)}")
        for code in self.problems:
            if code not in PROBLEMS:
                raise RouteError(f"{where}: {code!r} is not a code of the table of problems")
        for struct in (self.body, self.query):
            for bad in _open_structs(struct):
                raise RouteError(f"{where}: {bad} takes unknown fields; declare it with forbid_unknown_fields=True")
        if self.method == "GET" and (self.body is not None or self.guard is not None):
            raise RouteError(f"{where}: a GET takes no body")

    def _check_examples(self) -> None:
        """Read the examples as requests are read, so that the documentation cannot promise what is refused."""
        try:
            if "body" in self.examples and self.form:
                msgspec.convert(self.examples["body"], self.body)
            elif "body" in self.examples:
                self.body_reader.read(msgspec.json.encode(self.examples["body"]))
            if "query" in self.examples:
                msgspec.convert(self.examples["query"], self.query)
            for name, text in self.examples.get("path", {}).items():
                self.converters[name](name, text)
            for status, kind in self.answers.items():
                if status in self.examples:
                    msgspec.json.decode(msgspec.json.encode(self.examples[status]), type=kind)
        except (Problem, msgspec.ValidationError) as error:
            raise RouteError(f"{self!r}: an example is off the rules: {getattr(error, 'errors', error)}") from error


def _may_be_empty(body: Any) -> bool:
    info = msgspec.inspect.type_info(body)
    return isinstance(info, msgspec.inspect.StructType) and not any(field.required for field in info.fields)


def _open_structs(kind: Any) -> Iterator[str]:
    """Yield the names of Structs, at any depth, that would let unknown fields pass."""
    if kind is None:
        return
    stack: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[Any] = set()
    while stack:
        info = stack.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            if not info.forbid_unknown_fields:
                yield info.cls.__name__
            stack.extend(field.type for field in info.fields)
        elif isinstance(info, msgspec.inspect.UnionType):
            stack.extend(info.types)
        elif isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
            stack.append(info.item_type)
        elif isinstance(info, msgspec.inspect.DictType):
            stack.append(info.value_type)
        elif isinstance(info, msgspec.inspect.Metadata):
            stack.append(info.type)


class Table:
    """Routes by method and path; iterating gives them in the order they were named."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Route] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, new: Route) -> Route:
        """Put a route in. Raises `RouteError` when another has its place or its operation id."""
        if (old := self._routes.get((new.method, new.shape))) is not None:
            raise RouteError(f"{new!r} and {old!r} are the same call")
        for other in self:
            if other.operation_id == new.operation_id:
                raise RouteError(f"{new!r} and {other!r} have the same operation id {new.operation_id!r}")
            if other.shape == new.shape and other.template != new.template:
                raise RouteError(f"{new!r} and {other!r} name the parts of one path differently")
        self._routes[new.method, new.shape] = new
        return new

    def route(self, method: Method | Sequence[Method], path: str, **known: Any) -> Callable[[H], H]:
        """Put the decorated handler in; the handler itself is returned. Arguments are those of `Route`.

        Several methods make several routes; the first has the handler's name as operation id, the others
        `<name>_<method>`. Raises `RouteError` when no scope is named.
        """
        methods: Sequence[Method] = (method,) if isinstance(method, str) else method
        if "scope" not in known:
            raise RouteError(f"{'/'.join(methods)} {path}: names no scope")

        def put(handler: H) -> H:
            name = known.pop("operation_id", None) or handler.__name__
            for place, each in enumerate(methods):
                operation_id = name if place == 0 else f"{name}_{each.lower()}"
                self.add(Route(each, path, handler, operation_id=operation_id, **known))
            return handler

        return put


TABLE: Final = Table()
"""The routes of the product."""

route = TABLE.route
