"""The table, the closing sentence and the picture, from made-up observations."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from proxy.demo.figures import BulkJob, ConnectionSample, Observations, WebRequest, reckon
from proxy.demo.load_process import Tell
from proxy.demo.noon_import import ARMS, PLAN, ArmResult
from proxy.demo.picture import draw
from proxy.demo.report import Mood, closing_sentence, document, duration, rows
from proxy.demo.screen import Screen, show_table


def result(arm: int, burst_latency: float, web_error: str | None = None, job_error: str | None = None) -> ArmResult:
    seen = Observations(calm_from=1.0, burst_at=3.0, drained_at=6.0)
    seen.web = [WebRequest(n / 50, 0.005, None) for n in range(150)]
    seen.web += [WebRequest(3 + n / 50, burst_latency, None) for n in range(200)]
    seen.web += [WebRequest(4.0, 0.004, web_error)] if web_error else []
    seen.bulk = [BulkJob(3.0, 6.0, 1, job_error)]
    seen.samples = [ConnectionSample(n / 20, 18, 2, 12) for n in range(140)]
    return ArmResult(ARMS[arm], reckon(seen), seen, refusals_in_server_log=0)


RESULTS = [result(0, 0.02, "53300", "53300"), result(1, 2.5), result(2, 0.006)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0042, "4.2 ms"), (0.038, "38 ms"), (1.5, "1.50 s"), (12.3, "12.30 s"), (math.nan, "-")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bad_figures_stand_out() -> None:
    moods = {row.label: [mood for _, mood in row.cells] for row in rows(RESULTS)}
    assert moods["web p50 / p99, under the burst"] == [Mood.GOOD, Mood.BAD, Mood.GOOD]
    assert moods["web errors"] == [Mood.BAD, Mood.GOOD, Mood.GOOD]


def test_the_closing_sentence_says_what_was_measured() -> None:
    text = closing_sentence(RESULTS)
    assert "direct 20 ms, one shared pool 2.50 s, classes 6.0 ms" in text
    assert "Direct: 1 web requests and 1 jobs failed" in text
    assert "Classes:" not in text


def test_the_document_is_json_without_nan() -> None:
    silent = Observations(calm_from=1.0, burst_at=3.0)
    read = json.loads(json.dumps(document([ArmResult(ARMS[0], reckon(silent), silent, 0)]), allow_nan=False))
    assert read[0]["arm"] == "direct"
    assert read[0]["web_burst"]["p99"] is None


def test_the_table_fits_into_eighty_columns() -> None:
    out = io.StringIO()
    show_table(Console(file=out, width=80), RESULTS)
    text = out.getvalue()
    assert "bulk drain time" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_live_view_shows_where_the_run_stands() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    seen = RESULTS[0].seen
    with Screen(console, PLAN) as screen:
        screen.finish(RESULTS[0])
        screen.begin(ARMS[1])
        lately = RESULTS[1].figures.web_burst
        screen.tell(Tell(6.0, 900, 35, 2, lately, 120, 0, seen.samples[-1]))
        screen.tell(Tell(6.2, 930, 36, 2, RESULTS[0].figures.web_calm, 130, 3, seen.samples[-1]))
    text = out.getvalue()
    assert "one shared pool" in text
    assert "130 of 360 jobs" in text
    assert "36 waiting" in text


def test_in_a_pipe_there_is_a_line_per_arm() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=200), PLAN) as screen:
        screen.begin(ARMS[2])
        screen.finish(RESULTS[2])
    assert out.getvalue().splitlines()[1].startswith("classes: web p99 5.0 ms calm, 6.0 ms under the burst")


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_the_picture_is_written_in_the_format_of_its_name(tmp_path: Path, name: str, magic: bytes) -> None:
    draw(RESULTS, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
