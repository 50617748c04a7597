"""`pgheadroom serve`: run the proxy.

Owns: signals, exit codes, what is printed before the log begins.
Does not know: what the process does between start and end.
"""

import asyncio
import gc
import signal
from contextlib import suppress
from pathlib import Path

import click
import structlog
import uvloop

from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import load_config
from proxy.service.config.model import Config
from proxy.service.findings import BudgetCannotHold
from proxy.service.logs import set_up_logging
from proxy.service.process import Process
from proxy.service.tls import TlsFilesUnusable
from proxy.session.listener import CannotListen

log = structlog.get_logger("pgheadroom")

_NEVER_STARTS = (ConfigError, TlsFilesUnusable, BudgetCannotHold, CannotListen, OSError)


@click.command()
@click.option(
    "-c",
    "--config",
    "config_path",
    envvar="PGHEADROOM_CONFIG",
    required=True,
    type=click.Path(path_type=Path),
    help="The configuration file; also PGHEADROOM_CONFIG.",
)
def command(config_path: Path) -> None:
    """Run the proxy until SIGTERM. SIGHUP reads the configuration again."""
    try:
        config = load_config(config_path)
        set_up_logging(config.log.level, config.log.format)
        uvloop.run(_serve(config, config_path))
    except BudgetCannotHold as refusal:
        raise click.ClickException("\n".join(["the budget cannot hold:", *map(str, refusal.problems)])) from None
    except _NEVER_STARTS as mistake:
        raise click.ClickException(str(mistake)) from None


async def _serve(config: Config, config_path: Path) -> None:
    process = Process(config, lambda: load_config(config_path))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, process)
    try:
        for warning in await process.start():
            log.warning("unwise_setting", finding=str(warning))
    except BaseException:
        await process.drain_and_stop()
        raise
    # What exists now lives as long as the process; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    total = sum(upstream.registry.total for upstream in process.upstreams)
    log.info("listening", host=config.listen.host, port=process.listener.port, total=total)
    await stop.wait()
    log.info("draining", timeout_seconds=config.shutdown.drain_timeout)
    await process.drain_and_stop()


def _reload(process: Process) -> None:
    """A refused reload changes nothing; the log says why."""
    with suppress(*_NEVER_STARTS):
        process.reload_file(by="SIGHUP", source="signal")
