"""Whether a run of characters that looks like an identifier can be one: check digits, assigned ranges, lengths."""

from __future__ import annotations

import re
import socket

__all__ = ["IBAN_COUNTRIES", "IBAN_LENGTHS", "is_iban", "is_ipv6", "is_network_card", "is_ssn", "luhn"]

_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_ZERO = ord("0")

_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|(?:6011|64[4-9]\d|65\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14}"
)

_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20YE30",
    )
}

IBAN_COUNTRIES = tuple(_IBAN_LENGTHS)
"""Upper-case codes of the countries in the IBAN registry."""

_IBAN_NUMBER_OF = {
    ord(written): str(number).encode()
    for number, char in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for written in (char, char.lower())
}.__getitem__
"""Letters count as two digits, A = 10."""
_AS_WRITTEN = {
    written.encode(): country
    for country in IBAN_COUNTRIES
    for written in (country, country.lower(), country.title(), country.swapcase().title().swapcase())
}
IBAN_LENGTHS = {written: _IBAN_LENGTHS[country] for written, country in _AS_WRITTEN.items()}
"""Characters of an IBAN by the code of its country, in any case. Source: SWIFT IBAN registry."""
_COUNTRY_NUMBERS = {written: b"".join(map(_IBAN_NUMBER_OF, written)) for written in _AS_WRITTEN}


def luhn(digits: bytes) -> bool:
    """Whether the last digit is the check digit of the others. Source: ISO/IEC 7812-1, annex B."""
    # Two passes at the speed of `bytes`: a generator over the digits takes three times as long.
    plain = digits[-1::-2]
    return (sum(plain) - _ZERO * len(plain) + sum(digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def is_network_card(digits: str) -> bool:
    """Whether the digits have the prefix and the exact length of a large card network, and their check digit holds."""
    return _NETWORKS.fullmatch(digits) is not None and luhn(digits.encode())


def is_ssn(digits: str) -> bool:
    """Whether nine digits may be a US social security number.

    Source: Social Security Administration, "Social Security Number Randomization": never assigned are area 000, 666 and
    900-999, group 00, serial 0000.
    """
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return len(digits) == 9 and area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_iban(compact: bytes) -> bool:
    """Whether ASCII letters and digits, without separators, are an IBAN.

    Source: ISO 13616-1, "Check digits": moved to the end and read as a number, the remainder by 97 is 1.
    """
    country, check, account = compact[:2], compact[2:4], compact[4:]
    if len(compact) != IBAN_LENGTHS.get(country) or not check.isdigit():
        return False
    # From the first letter to the last there are seldom more than four characters.
    letters = account.strip(b"0123456789")
    number = account.replace(letters, b"".join(map(_IBAN_NUMBER_OF, letters))) if letters else account
    return int(number + _COUNTRY_NUMBERS[country] + check) % 97 == 1


def is_ipv6(text: str) -> bool:
    """Whether the text is an address that may identify somebody.

    Short forms such as `::1` or `1::2` are left alone, as they mean this machine or are slices in source code; so are
    words such as `dead::beef` that have no digit and fewer than three groups.
    """
    if "::" in text:
        groups = [group for group in text.split(":") if group]
        if len(groups) < 2 or (len(groups) < 3 and (not any(map(str.isdigit, text)) or max(map(len, groups)) < 3)):
            return False
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return False
    return True
