# What compiled modules call in place of `prefilter.py`: the same, without objects in between.

from proxy.wire cimport _compiled


cdef inline bint may_matter(bytes sql, bint backslash_escapes, Py_ssize_t start, Py_ssize_t end):
    return _compiled.may_matter(sql, backslash_escapes, start, end)
