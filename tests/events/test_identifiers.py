"""Phones in E.164, emails in lower case, user ids as text - and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from decimal import Decimal
from uuid import UUID

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.events.identifiers import read_email, read_phone, read_user_id
from tests.events import hostile


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+12125550100", "+12125550100"),
        ("(212) 555-0100", "+12125550100"),
        (" 212.555.0100 ", "+12125550100"),
        ("1 212 555 0100", "+12125550100"),
        (12125550100, "+12125550100"),
        (Decimal("2125550100"), "+12125550100"),
        (hostile.NumpyLike(2125550100), "+12125550100"),
        ("+44 20 7946 0958", "+442079460958"),
        ("011 44 20 7946 0958", "+442079460958"),
        ("\u202a+1 212-555-0100\u202c", "+12125550100"),  # as copied from an address book
        ("\uff12\uff11\uff12\uff15\uff15\uff15\uff10\uff11\uff10\uff10", "+12125550100"),
    ],
)
def test_a_phone_is_kept_in_e164(written, number):
    assert read_phone(written) == number


spellings = st.from_regex(r"(\+?1)?[-. ]?\(?[2-9][0-9]{2}\)?[-. ]?[0-9]{3}[-. ]{0,2}[0-9]{4}", fullmatch=True)


@hostile.many
@given(written=spellings | spellings.map(lambda text: "212" + text[3:]))
def test_a_number_of_the_region_is_judged_as_libphonenumber_does(written):
    number = phonenumbers.parse(written, "US")
    if phonenumbers.is_valid_number(number):
        assert read_phone(written) == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    else:
        with pytest.raises(ValueError, match="not a valid phone number"):
            read_phone(written)


def test_every_area_code_of_the_country_code_is_judged_as_libphonenumber_does():
    for area in range(200, 1000):
        written = f"({area}) 234-5678"
        valid = phonenumbers.is_valid_number(phonenumbers.parse(written, "US"))
        with nullcontext() if valid else pytest.raises(ValueError, match="not a valid phone number"):
            assert read_phone(written) == f"+1{area}2345678"


@pytest.mark.parametrize(
    "number",
    ["+1212555010.0", "2125550100.0", "2125550100.", "2125550100.00", "(212) 555-010.0", "+1212555010.5",
     2125550100.0, Decimal("2125550100.0"), Decimal("2.1255501E+9"), "2.125550131E9", "2.1e+09", "1.21256E+10"],
)  # fmt: skip
def test_a_number_that_became_a_fraction_or_got_an_exponent_is_refused(number):
    with pytest.raises(ValueError, match="read the column as text"):
        read_phone(number)


@pytest.mark.parametrize("dotted", ["212.555.0100", "1.212.555.0100", "212555.0100", "+33.1.42.68.53.00"])
def test_dots_between_the_digits_are_no_fraction(dotted):
    assert read_phone(dotted) in ("+12125550100", "+33142685300")


@pytest.mark.parametrize(
    "extension", ["212-555-0100 ext 5", "+12125550100 x5", "(212) 555-0100 ext. 12", "2125550100;ext=7"]
)
def test_an_extension_is_refused(extension):
    with pytest.raises(ValueError, match="has an extension"):
        read_phone(extension)


@pytest.mark.parametrize(
    "words", ["do not call 2125550100", "Ines 2125550100", "tel:+12125550100", "1-800-FLOWERS", "2125550100 x"]
)
def test_a_number_among_words_is_refused(words):
    with pytest.raises(ValueError, match="holds letters"):
        read_phone(words)


@pytest.mark.parametrize(
    "invalid",
    ["+15555550100", "+1 555 555 0100", "+12225555555", "+144455555555", "5550100", "12", "+", "", "n/a", "0", "-1",
     "2125550100, 4155550199", "+12125550100" * 30, "7" * 400, 10**400, Decimal("1E+999999999"), Decimal("NaN"),
     Decimal("2125550100.5"), 2125550100.0, True, None, [], b"+12125550100", object()],
)  # fmt: skip
def test_what_is_no_valid_phone_is_refused(invalid):
    with pytest.raises(ValueError, match=r"phone number"):
        read_phone(invalid)


@hostile.many
@given(st.one_of(hostile.values, st.from_regex(r"[+(]?[0-9 ().x#;,/-]{0,18}\Z")))
def test_any_phone_is_e164_or_refused_without_its_value(written):
    try:
        number = read_phone(written)
    except ValueError as error:
        assert not any(secret in str(error) for secret in hostile.SECRETS)
    else:
        assert number[0] == "+"
        assert number[1:].isascii()
        assert number[1:].isdigit()
        assert 8 <= len(number) <= 16
        assert read_phone(number) == number


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (" Ines@Example.COM\n", "ines@example.com"),
        ("o'neil+tag@mail.example.co.uk", "o'neil+tag@mail.example.co.uk"),
        ("ü@bücher.example", "ü@bücher.example"),
        (hostile.NumpyLike("A@b.org"), "a@b.org"),
    ],
)
def test_an_email_is_trimmed_and_lower_cased(written, address):
    assert read_email(written) == address


@pytest.mark.parametrize(
    "invalid",
    ["", "nobody", "@example.com", "a@", "a@b", "a@@b.org", "a@b@c.org", "a b@c.org", "a@b..org", "a@b.org.",
     "a..b@c.org", ".a@b.org", "a.@b.org", "a@-b.org", "a@b-.org", "a@b_c.org", "a@1.2.3.4", "<a@b.org>",
     "Ines <a@b.org>", "a@b.org,c@d.org", "mailto:a@b.org", "a\u200b@b.org", "a@b\u00ad.org", "a\x00@b.org",
     "a\ud800@b.org", "x" * 65 + "@b.org", "a@" + "b." * 130 + "org", "a@" + "b" * 64 + ".org",
     None, 5, b"a@b.org", ["a@b.org"]],
)  # fmt: skip
def test_what_is_no_email_is_refused(invalid):
    with pytest.raises(ValueError, match="email address"):
        read_email(invalid)


@hostile.many
@given(st.one_of(hostile.values, st.emails(), st.from_regex(r"[^@]{1,5}@[^@]{1,5}\.[a-z]{2}\Z")))
def test_any_email_is_canonical_or_refused(written):
    try:
        address = read_email(written)
    except ValueError:
        return
    assert read_email(address) == address
    assert address.isprintable()


@given(st.from_regex(r"[a-z0-9_.+-]{1,40}@[a-z0-9.-]{1,40}", fullmatch=True))
def test_the_quick_look_at_an_email_finds_what_the_slow_one_finds(written):
    def found(text):
        try:
            return read_email(text)
        except ValueError:
            return None

    assert found(written) == found(f" {written}")  # which takes the slow path


@pytest.mark.parametrize(
    ("written", "user_id"),
    [
        ("cust-0042", "cust-0042"),
        (42, "42"),
        (2**63, "9223372036854775808"),
        (Decimal("42"), "42"),
        (Decimal("1E+5"), "100000"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (hostile.NumpyLike(7), "7"),
        (hostile.Shade.DARK, "dark"),
        (hostile.Level.HIGH, "3"),
        (" 7 ", "7"),
        (42.0, "42"),
        (Decimal("1790.0"), "1790"),
        (Decimal("7E+2"), "700"),
        ("u1        ", "u1"),  # a char(10)
        ("\ufeffu1\u200b\u00a0", "u1"),
    ],
)
def test_a_user_id_is_text_with_all_its_digits(written, user_id):
    assert read_user_id(written) == user_id


@pytest.mark.parametrize(
    "invalid",
    [7.5, 2.0**60, float("inf"), "None", "\\N", Decimal("1.5"), Decimal("Infinity"), Decimal("sNaN"),
     Decimal("1E+999999999"), 10**400, True, None, [], {}, {1}, b"7", bytearray(b"7"), object(), hostile.NA, "a\ud800"],
)  # fmt: skip
def test_what_is_no_id_is_refused(invalid):
    with pytest.raises(ValueError, match=r"user id|Unicode"):
        read_user_id(invalid)
