"""The fast look at a statement, in plain Python: can it matter to `sql` at all?

Owns: the pattern that nothing with meaning for sharing gets past. It may cry wolf; `sql` then looks closely.
Does not know: strings and comments (the compiled one does, and cries less often), what the words mean.
"""

import re
from typing import Final

# Words that matter wherever they stand, and words that do at the beginning of a statement, or behind a comment there.
_MATTERS: Final = re.compile(
    rb"(?i)"
    rb"(?<![a-z0-9_$\x80-\xff])(?:pg_|temp(?:orary)?(?![a-z0-9_$\x80-\xff])|set_config|dblink_connect|u&\")"
    rb"|(?:\A|;)\s*+(?:--|/\*|(?:set|reset|listen|unlisten|prepare|load|discard|deallocate|declare|close)"
    rb"(?![a-z0-9_$\x80-\xff]))"
)


def may_matter(sql: bytes, backslash_escapes: bool = False, start: int = 0, end: int = -1) -> bool:
    """False: no statement in `sql[start:end]` changes session state that `sql.inspect_sql` knows of.

    `end` counts from the beginning; -1 stands for the end of the text.
    """
    return _MATTERS.search(sql[start : len(sql) if end < 0 else end]) is not None
