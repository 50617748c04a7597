"""Tables as plain text."""

from proxy.cli.output import plain_table


def test_numbers_stand_on_the_right_and_texts_on_the_left():
    assert plain_table(["class", "limit"], [["web", "70"], ["bulk", "5"]], width=80) == (
        "class  limit\n-----  -----\nweb       70\nbulk       5\n"
    )


def test_the_widest_column_is_wrapped_where_the_line_is_short():
    table = plain_table(["key", "text"], [["a", "one two three four five six seven eight"]], title="t", width=24)
    assert table == "t\nkey  text\n---  -------------------\na    one two three four\n     five six seven\n     eight\n"


def test_a_cell_that_is_empty_keeps_its_place():
    assert plain_table(["a", "b"], [["", "x"]], width=80) == "a  b\n-  -\n   x\n"


def test_columns_stand_closer_where_nothing_can_be_wrapped():
    row = ["transaction", "transaction", "transaction"]

    assert plain_table(["a", "b", "c"], [row], width=36).splitlines()[-1] == " ".join(row)
    assert plain_table(["a", "b", "c"], [row], width=37).splitlines()[-1] == "  ".join(row)
