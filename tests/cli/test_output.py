"""Tables as plain text."""

from proxy.cli.output import plain_table, print_line, print_table


def test_numbers_stand_on_the_right_and_texts_on_the_left():
    assert plain_table(["class", "limit"], [["web", "70"], ["bulk", "5"]], width=80) == (
        "class  limit\n-----  -----\nweb       70\nbulk       5\n"
    )


def test_the_widest_column_is_wrapped_where_the_line_is_short():
    table = plain_table(["key", "text"], [["a", "one two three four five six seven eight"]], title="t", width=24)
    assert table == "t\nkey  text\n---  -------------------\na    one two three four\n     five six seven\n     eight\n"


def test_a_long_title_is_wrapped():
    assert plain_table(["a"], [["1"]], title="one two three", width=8).splitlines()[:2] == ["one two", "three"]


def test_a_cell_that_is_empty_keeps_its_place():
    assert plain_table(["a", "b"], [["", "x"]], width=80) == "a  b\n-  -\n   x\n"


def test_columns_stand_closer_where_nothing_can_be_wrapped():
    row = ["transaction", "transaction", "transaction"]

    assert plain_table(["a", "b", "c"], [row], width=36).splitlines()[-1] == " ".join(row)
    assert plain_table(["a", "b", "c"], [row], width=37).splitlines()[-1] == "  ".join(row)


def test_where_the_widest_is_narrow_already_headings_are_wrapped_and_no_word_is_cut():
    table = plain_table(["class", "oldest wait", "state"], [["imports", "3.2 s", "running"]], width=22)
    assert table == ("class   oldest state\n        wait\n------- ------ -------\nimports 3.2 s  running\n")


def test_a_table_too_wide_for_its_frame_has_none(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    print_table(["class", "reserved", "limit", "state"], [["web", 10, 20, "running"]])
    assert capsys.readouterr().out.splitlines()[0].split() == ["class", "reserved", "limit", "state"]


def test_a_long_line_is_wrapped_between_words_on_a_terminal_and_left_alone_elsewhere(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    print_line("slots: 24 of 54 in use, all well")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_line("slots: 24 of 54 in use, all well")
    assert capsys.readouterr().out == "slots: 24 of 54 in use, all well\nslots: 24 of 54 in\n    use, all well\n"
