"""`pgheadroom demo`: the same noon import three times, on a database of its own.

Owns: the options, the order (run, table, picture), and that an interrupted demo leaves nothing behind.
Does not know: the load, the arms, how figures are drawn.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from proxy.cli.output import print_json
from proxy.demo.errors import DemoError
from proxy.demo.extras import require_extras

PICTURE_FORMATS = (".png", ".svg", ".pdf")


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    default=Path("demo-result.png"),
    show_default=True,
    help="Where the picture goes; .png, .svg or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON for programs.")
def command(output: Path, as_json: bool) -> None:
    """Show what the proxy is for: a noon import straight at the database, through one shared pool, through classes.

    Starts a PostgreSQL with few connections of its own (and stops it), runs the same load three times and prints what
    it measured. Takes about a minute; nothing but this machine is touched.
    """
    if output.suffix not in PICTURE_FORMATS:
        formats = ", ".join(PICTURE_FORMATS)
        raise click.BadParameter(f"{output.name} should end in one of {formats}", param_hint="--output")
    try:
        require_extras()
        with _ended_like_ctrl_c():
            _run(output, as_json)
    except DemoError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("Stopped. Nothing was left behind.", err=True)
        sys.exit(130)


def _run(output: Path, as_json: bool) -> None:
    # Here, so that the sentence about missing extras comes before an ImportError.
    from rich.console import Console  # noqa: PLC0415

    from proxy.demo.noon_import import ARMS, PLAN, run_arm  # noqa: PLC0415
    from proxy.demo.picture import draw  # noqa: PLC0415
    from proxy.demo.report import document  # noqa: PLC0415
    from proxy.demo.screen import Screen, show_table  # noqa: PLC0415

    results = []
    with Screen(Console(stderr=as_json), PLAN) as screen:
        for arm in ARMS:
            screen.begin(arm)
            results.append(run_arm(arm, PLAN, screen.tell))
            screen.finish(results[-1])
    draw(results, output)
    if as_json:
        print_json(document(results))
    else:
        show_table(Console(), results)
        click.echo(f"Picture: {output}")


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """A closed terminal or `kill` unwinds as Ctrl-C does: servers are stopped, folders removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
