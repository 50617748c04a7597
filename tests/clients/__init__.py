"""Real clients through the proxy, against real servers."""

import pytest

pytest.register_assert_rewrite("tests.clients.ways")  # so that its assertions show what they compared
