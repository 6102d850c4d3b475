"""Sending the trace of a run to a collector (OTLP by HTTP), when the standard variables name one.

Nothing is imported before. It never decides anything about a run, and takes a few seconds at most.
"""

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import __version__
from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.plans import read_plan
from runner.traces import Span, described, spans_of, trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.util.types import AttributeValue

__all__ = ["Parent", "export", "parent_of", "wanted"]

WITHIN = 5.0
"""Seconds after which a run is not held up any longer."""
ANSWER_WITHIN = 4.0
"""Seconds that the collector has, further tries included."""
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that a run belongs to, of somebody who called us."""

    trace: int
    span: int
    sampled: bool = True


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    named = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return not off and any(environ.get(name) for name in named)


def parent_of(environ: Mapping[str, str]) -> Parent | None:
    """The caller's span by `TRACEPARENT` (W3C Trace Context); one that is malformed is none."""
    found = _TRACEPARENT.fullmatch(environ.get("TRACEPARENT", "").strip())
    return Parent(int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & 1)) if found else None


def export(folder: RunFolder, *, url: str = "", parent: Parent | None = None) -> str:
    """Send the trace of a run that has ended; why it was not taken, empty if it was or there is none. Blocks.

    A caller that does not record his trace (`TRACEPARENT` without the flag) is followed: then there is none.
    """
    if parent and not parent.sampled:
        return ""
    said: list[str] = []
    worker = threading.Thread(target=lambda: said.append(_export(folder, url, parent)), daemon=True)
    worker.start()
    worker.join(WITHIN)
    return said[0] if said else f"the collector did not answer within {WITHIN:g} s"


def _export(folder: RunFolder, url: str, parent: Parent | None) -> str:
    try:
        plan = read_plan(folder)
        spans = spans_of(folder.records(), plan)
        return _send(spans, parent or Parent(trace_id(plan.run.id), 0), described(plan, url)) if spans else ""
    except ModuleNotFoundError as error:
        return f"there is no {error.name}: traces need the extra `pipe-ci[otel]`"
    except (PipeError, ValueError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - what an exporter does must not matter
        return f"{type(error).__name__}: {error}"


def _send(spans: list[Span], parent: Parent, about: Mapping[str, "AttributeValue"]) -> str:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    resource = _resource(about)
    made = [_made(span, parent, resource) for span in spans]
    with _listening() as heard:
        taken = OTLPSpanExporter(timeout=ANSWER_WITHIN).export(made) is SpanExportResult.SUCCESS
    return "" if taken else heard[0] if heard else "the collector did not take it"


def _resource(about: Mapping[str, "AttributeValue"]) -> "Resource":
    """Who tells: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over what we are called."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = Resource({"service.name": "pipe", "service.version": __version__})
    return ours.merge(OTELResourceDetector().detect()).merge(Resource(about))


def _made(span: Span, parent: Parent, resource: "Resource") -> "ReadableSpan":
    """A span as the SDK would have made it, had it been there."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(id_: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(parent.trace, id_, remote, TraceFlags(TraceFlags.SAMPLED))

    above = context(span.parent) if span.parent else context(parent.span, remote=True) if parent.span else None
    return ReadableSpan(
        span.name,
        context(span.id),
        above,
        resource,
        span.attributes,
        kind=SpanKind.INTERNAL if span.parent else SpanKind.SERVER,
        status=Status(StatusCode.ERROR, span.wrong) if span.wrong else Status(StatusCode.UNSET),
        start_time=int(span.started * 1000) * 1_000_000,
        end_time=int(span.ended * 1000) * 1_000_000,
        instrumentation_scope=InstrumentationScope("pipe", __version__),
    )


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What the exporter logs, which is where it says why; nobody else is told."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage()[:300])  # type: ignore[method-assign]
    logger = logging.getLogger("opentelemetry.exporter")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
