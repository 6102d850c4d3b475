"""Plain scalars as kubectl reads them, and variables in them."""

import pytest

from stages.clients.kubernetes.scalars import Variables, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8080", 8080),
        ("-1", -1),
        ("0755", 493),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("08", 8),
        ("1.5", 1.5),
        ("1e3", 1000),
        (".5", 0.5),
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("~", None),
        ("", None),
        ("2001-12-14", "2001-12-14"),
        ("2001-12-14T21:59:43Z", "2001-12-14T21:59:43Z"),
        ("22:22", "22:22"),
        ("1.2.3", "1.2.3"),
        ("50%", "50%"),
        ("100m", "100m"),
        ("1.10", 1.1),
        ("nan", "nan"),
        ("-", "-"),
        ("tRue", "tRue"),
    ],
)
def test_a_plain_scalar_is_what_kubectl_takes_it_for(text: str, value: object) -> None:
    found = plain(text)
    assert (found, type(found)) == (value, type(value))


VALUES = {"NAME": "web", "PORT": "8080", "ON": "true", "TAG": "1.10", "EMPTY": "", "DOLLAR": "$NAME"}


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("$NAME", "web"),
        ("${NAME}", "web"),
        ("a-$NAME-b", "a-web-b"),
        ("$NAME$PORT", "web8080"),
        ("$NAMES", "$NAMES"),
        ("$$NAME", "$NAME"),
        ("$$$NAME", "$web"),
        ("$(NAME)", "$(NAME)"),
        ("${NAME:-x}", "${NAME:-x}"),
        ("${a.b}", "${a.b}"),
        ("$1", "$1"),
        ("5$", "5$"),
        ("$EMPTY!", "!"),
        ("$DOLLAR", "$NAME"),
    ],
)
def test_variables_are_replaced_once_and_any_other_dollar_stays(text: str, replaced: str) -> None:
    assert Variables(VALUES).replace(text) == replaced


@pytest.mark.parametrize(
    ("text", "value"),
    [("$PORT", 8080), ("${ON}", True), ("$TAG", "1.10"), ("$NAME", "web"), ("$$", None), ("p$PORT", None)],
)
def test_a_variable_alone_is_a_number_or_a_bool_where_it_reads_so(text: str, value: object) -> None:
    assert Variables(VALUES).alone(text) == value


def test_with_a_list_only_its_names_are_looked_at_and_double_dollars_stay() -> None:
    variables = Variables(VALUES, frozenset({"NAME", "GONE"}))
    assert variables.replace("$NAME $PORT $$ $$NAME") == "web $PORT $$ $$NAME"
    assert [name for name, _ in variables.unset("$GONE $OTHER $NAME")] == ["GONE"]


def test_with_nothing_to_substitute_nothing_is_missing() -> None:
    variables = Variables({}, frozenset())
    assert variables.replace("$NAME $$") == "$NAME $$"
    assert not [*variables.unset("$NAME")]


def test_every_unset_name_is_found_with_its_offset() -> None:
    assert [*Variables(VALUES).unset("$A $NAME ${B} $$C")] == [("A", 0), ("B", 9)]
