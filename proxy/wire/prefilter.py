"""The fast look at a statement: the compiled one where it imports, else the plain one.

Owns: the choice.
Does not know: what either looks at.
"""

try:
    from proxy.wire._compiled import may_matter
except ImportError:  # no compiler at install time
    from proxy.wire._prefilter import may_matter

__all__ = ["may_matter"]
