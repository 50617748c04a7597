"""Log lines of what happens often: one now and then, with the number of those left out."""

from proxy.session.limited_log import LimitedLog


class Lines(list[dict[str, object]]):
    def warning(self, event: str, **facts: object) -> None:
        self.append({"event": event, **facts})


def test_one_line_of_a_kind_is_written_and_the_next_says_how_many_were_not() -> None:
    lines = Lines()
    limited = LimitedLog(lines, every_seconds=10.0)
    for now in (100.0, 101.0, 109.0, 110.0):
        limited.warning("hold_ended", "query", now, at=now)
    assert lines == [
        {"event": "hold_ended", "left_out": 0, "at": 100.0},
        {"event": "hold_ended", "left_out": 2, "at": 110.0},
    ]


def test_kinds_do_not_hide_each_other() -> None:
    lines = Lines()
    limited = LimitedLog(lines)
    limited.warning("hold_ended", "query", 5.0)
    limited.warning("hold_ended", "transaction", 5.0)
    assert len(lines) == 2


def test_the_number_of_kinds_is_bounded() -> None:
    lines = Lines()
    limited = LimitedLog(lines)
    for kind in range(5000):
        limited.warning("hold_ended", kind, 5.0)
    assert len(lines) == 5000
    assert len(limited._written) <= 1000
