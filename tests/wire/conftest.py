"""Both cursors, for every test that takes `cursor_class`."""

import pytest

from proxy.wire import _plain

try:
    from proxy.wire import _compiled
except ImportError:
    _compiled = None

CURSORS = [_plain.Cursor] if _compiled is None else [_plain.Cursor, _compiled.Cursor]


@pytest.fixture(params=CURSORS, ids=lambda cursor: cursor.__module__.rpartition("_")[2])
def cursor_class(request):
    return request.param
