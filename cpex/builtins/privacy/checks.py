"""Whether a run of characters that looks like an identifier can be one: check digits, assigned ranges, lengths."""

from __future__ import annotations

import re
import socket

__all__ = ["is_card", "is_iban_start", "is_ipv4", "is_ipv6", "is_network_card", "is_ssn", "luhn"]

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# ISO/IEC 7812 issuer ranges. The first go with 13 to 19 digits; the second with 17 and 18 of them, which few networks
# issue and many identifiers have; the third are exact, for numbers that nobody wrote as a card.
_ISSUERS = re.compile(r"[3-6]|220[0-4]|22[3-9]|222[1-9]|2[3-6]|27[01]|2720|1800|2131|8[12]")
_LONG_ISSUERS = re.compile(r"5[0-9]|6|8[12]")
_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|(?:6011|64[4-9]\d|65\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14}"
)

_IBAN_LENGTHS = dict(
    re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20YE30",
    )
)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others. Source: ISO/IEC 7812-1, annex B."""
    total = sum(map(int, digits[-1::-2])) + sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Whether 13 to 19 digits begin as payment cards do and their check digit holds."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    issuers = _LONG_ISSUERS if len(digits) in (17, 18) else _ISSUERS
    return issuers.match(digits) is not None and luhn(digits)


def is_network_card(digits: str) -> bool:
    """Whether the digits have the prefix and the exact length of a large card network, and their check digit holds."""
    return _NETWORKS.fullmatch(digits) is not None and luhn(digits)


def is_ssn(digits: str) -> bool:
    """Whether nine digits may be a US social security number.

    Source: Social Security Administration, "Social Security Number Randomization": never assigned are area 000, 666 and
    900-999, group 00, serial 0000.
    """
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return len(digits) == 9 and area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def iban_length(country: str) -> int:
    """Characters of an IBAN of that country, 0 when it has none. Source: SWIFT IBAN registry."""
    return int(_IBAN_LENGTHS.get(country, 0))


def is_iban_start(compact: str) -> int:
    """Length of the IBAN that the upper-case text, without separators, begins with; 0 when it begins with none.

    Source: ISO 13616-1, "Check digits": moved to the end and read as a number, the remainder by 97 is 1.
    """
    length = iban_length(compact[:2])
    if not length or len(compact) < length:
        return 0
    rotated = compact[4:length] + compact[:4]
    # Letters count as two digits, A = 10.
    return length if int("".join(str(int(char, 36)) for char in rotated)) % 97 == 1 else 0


def is_ipv4(text: str) -> bool:
    """Whether four groups of digits are an address: none above 255."""
    return all(int(group) <= 255 for group in text.split("."))


def is_ipv6(text: str) -> bool:
    """Whether the text is an address that may identify somebody.

    Short forms such as `::1` or `1::2` are left alone, as they mean this machine or are slices in source code; so are
    words such as `dead::beef` that have no digit and fewer than three groups.
    """
    groups = [group for group in text.split(":") if group]
    if len(groups) < 2 or (len(groups) < 3 and (not any(map(str.isdigit, text)) or max(map(len, groups)) < 3)):
        return False
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return False
    return True
