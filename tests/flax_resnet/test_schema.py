"""Messages about invalid JSON files."""

import pytest

from flax_resnet.schema import SchemaError, integer, mapping, parse_json, record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "it is not valid JSON: an object has a field twice"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"sizes": {"a": 10}}', "sizes.a must be an integer from 0 to 9, not 10"),
        (b'{"sizes": {"a": true}}', "sizes.a must be an integer from 0 to 9, not True"),
        (b'{"sizes": {"\\ud800": 1}}', r"a name in sizes must be valid Unicode, not '\ud800'"),
        (b"{}", "sizes must be an object of at most 1,000 fields, it is missing"),
        (b"[]", "the file must be an object, not []"),
    ],
)
def test_message_names_the_field_and_the_value(content, message):
    with pytest.raises(SchemaError) as error:
        parse_json(content, record(sizes=mapping(integer(0, 9))))
    assert str(error.value) == message


def test_message_names_the_file_for_its_own_fields():
    with pytest.raises(SchemaError, match=r"^a name in the file must be valid Unicode"):
        parse_json(b'{"\\ud800": 1}', mapping(integer()))


def test_advice_of_python_to_lift_its_limit_is_left_out():
    with pytest.raises(SchemaError) as error:
        parse_json(b"9" * 5000, integer())
    assert "5000 digits" in str(error.value)
    assert "set_int_max_str_digits" not in str(error.value)
