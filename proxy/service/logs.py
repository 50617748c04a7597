"""How log lines look.

Owns: the setup of structlog for this process.
Does not know: what is logged.
"""

import logging
import sys

import structlog


def set_up_logging(level: str, format_name: str) -> None:
    """Lines to standard error: JSON for collectors, text for people."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if format_name == "json"
        # Where rich is installed, structlog's own choice shows the values of local variables: passwords, query texts.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # JSON escapes what a client calls itself by itself; a terminal would obey it.
    processors.append(structlog.processors.format_exc_info if format_name == "json" else _printable)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _printable(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Texts without control characters: names are chosen by clients, and lines of text are read on terminals."""
    return {key: _without_controls(value) if isinstance(value, str) else value for key, value in event.items()}


def _without_controls(text: str) -> str:
    # A text with a line break is quoted by the renderer.
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
