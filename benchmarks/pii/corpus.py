"""Labelled text, made of values that `Faker` invents and sentences that hold them, the same for the same seed.

A sample is a short document as an agent meets it: prose, a log line, a JSON or CSV record. Every piece of personal data
in it is labelled. Beside it stand numbers that look like personal data and are none, since a recogniser that calls
every number a card finds all cards.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["LABELS", "PHONE_REGIONS", "Label", "Sample", "documents", "records"]

LABELS = ("card", "email", "phone", "ssn", "iban", "ip")
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "en_IN", "pt_BR", "it_IT", "es_ES", "nl_NL")
"""Where the values come from."""
_IBAN_LOCALES = ("de_DE", "fr_FR", "pt_BR", "it_IT", "es_ES", "nl_NL", "no_NO", "pl_PL", "de_AT")
"""Countries whose account numbers Faker makes as long as they are."""
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
"""Whose national numbers are phones: the default of `presidio-analyzer`; both sides look for these."""


class Label(NamedTuple):
    """One piece of personal data: `text[start:end]`."""

    start: int
    end: int
    type: str


class Sample(NamedTuple):
    """A document and what is in it."""

    text: str
    labels: tuple[Label, ...]


PROSE = (
    "Please charge {card} and send the receipt to {email}.",
    "My number is {phone}, call me after lunch.",
    "{name} wrote from {email} that card {card} was declined at {time}.",
    "Refund {money} to {iban} by {date}.",
    "The applicant's social security number is {ssn}; reference {order}.",
    "SSN {ssn}, phone {phone}, see ticket {ticket}.",
    "Transfer from {iban} to {iban} was booked as {order}.",
    "Login from {ip} at {time} failed for {email}.",
    "{name} lives in {city}, reachable under {phone} or {email}.",
    "Order {order} of {date} holds {count} items, tracking {tracking}.",
    "Upgrade to version {version} before {date}; build {sha} is broken.",
    "Flight {flight} leaves at {time}, booking {booking}, seat {count}A.",
    "The part {part} costs {money}; stock in {city}: {count}.",
    "Measured {float} s on average, {float} at worst, over {count} runs.",
    "Invoice {order} ({uuid}) was paid with {card} by {name}.",
    "ISBN {isbn} is out of print, EAN {ean} is the new edition.",
    "Meet {name} at {time} in {city}. Nothing else to report, the meeting of {date} is cancelled.",
    "Account {iban}; holder {name}; contact {email}, {phone}.",
)
RECORDS = (
    ("{name}", "{email}", "{phone}"),
    ("{order}", "{card}", "{money}"),
    ("{ip}", "{time}", "{uuid}"),
    ("{uuid}", "{epoch}", "{float}"),
    ("{name}", "{ssn}", "{city}"),
    ("{tracking}", "{epoch}", "{count}"),
    ("{iban}", "{money}", "{date}"),
    ("{mac}", "{version}", "{sha}"),
)
LOG_LINES = (
    "{date}T{time}Z INFO client={ip} user={email} req={uuid} took={float}s",
    "{date} {time} WARN [{sha}] retry {count} of order {order} at {epoch}",
    '{ip} - - [{date}:{time} +0000] "GET /items/{order} HTTP/1.1" 200 {count}',
    "{date} {time} DEBUG trace={uuid} span={sha} mac={mac} bytes={epoch}",
    "{date} {time} ERROR payment card={card} declined, iban={iban}, support={phone}",
)
_FIELD = re.compile(r"\{(\w+)\}")


class Inventor:
    """Invents the values of fields; each call of `value` is a new one."""

    def __init__(self, seed: int) -> None:
        # Not a dependency of the package: the tests and this benchmark install it.
        from faker import Faker

        self.random = random.Random(seed)
        self._fakes = _seeded(Faker, LOCALES, seed)
        self._banks = _seeded(Faker, _IBAN_LOCALES, seed)
        self._fields: dict[str, Callable[[], str]] = {
            name.removeprefix("_make_"): getattr(self, name) for name in dir(self) if name.startswith("_make_")
        }

    def value(self, field: str) -> str:
        """A value of a field: of one of `LABELS`, or of something that is no personal data of these types."""
        return self._fields[field]()

    def _fake(self) -> Any:
        return self.random.choice(self._fakes)

    def _digits(self, count: int) -> str:
        return str(self.random.randint(1, 9)) + "".join(str(self.random.randint(0, 9)) for _ in range(count - 1))

    def _make_card(self) -> str:
        digits: str = self._fake().credit_card_number()
        if len(digits) == 16:
            groups = [digits[i : i + 4] for i in range(0, 16, 4)]
        elif len(digits) == 15:
            groups = [digits[:4], digits[4:10], digits[10:]]
        else:
            groups = [digits]
        return self.random.choice(("", " ", "-")).join(groups)

    def _make_email(self) -> str:
        address: str = self.random.choice((self._fake().email, self._fake().company_email))()
        local, _, domain = address.partition("@")
        return f"{local}+{self.random.randint(1, 99)}@{domain}" if self.random.random() < 0.1 else address

    def _make_phone(self) -> str:
        # Those that Faker invents are often of no numbering plan; an example number with other last digits is.
        import phonenumbers

        region = self.random.choice(PHONE_REGIONS)
        kind = self.random.choice((phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE))
        number: Any = phonenumbers.example_number_for_type(region, kind)
        while True:
            digits = str(number.national_number)
            number.national_number = int(digits[:-4] + "".join(str(self.random.randint(0, 9)) for _ in range(4)))
            if phonenumbers.is_valid_number(number):
                break
        formats = phonenumbers.PhoneNumberFormat
        form = self.random.choice((formats.E164, formats.INTERNATIONAL, formats.NATIONAL, formats.NATIONAL))
        return str(phonenumbers.format_number(number, form))

    def _make_ssn(self) -> str:
        ssn: str = self._fakes[0].ssn()
        return ssn if self.random.random() < 0.8 else ssn.replace("-", self.random.choice((" ", ".")))

    def _make_iban(self) -> str:
        iban: str = self.random.choice(self._banks).iban()
        if self.random.random() < 0.5:
            return iban
        return " ".join(iban[i : i + 4] for i in range(0, len(iban), 4))

    def _make_ip(self) -> str:
        fake = self._fakes[0]
        return str(fake.ipv6() if self.random.random() < 0.3 else fake.ipv4())

    def _make_name(self) -> str:
        return str(self._fake().name())

    def _make_words(self) -> str:
        return str(self._fake().paragraph())

    def _make_city(self) -> str:
        return str(self._fake().city())

    def _make_date(self) -> str:
        return f"{self.random.randint(1990, 2030)}-{self.random.randint(1, 12):02}-{self.random.randint(1, 28):02}"

    def _make_time(self) -> str:
        return ":".join(f"{self.random.randrange(limit):02}" for limit in (24, 60, 60))

    def _make_money(self) -> str:
        return f"{self.random.randint(1, 9999)}.{self.random.randint(0, 99):02} {self.random.choice(('EUR', 'USD'))}"

    def _make_count(self) -> str:
        return str(self.random.randint(1, 500))

    def _make_order(self) -> str:
        return self.random.choice(("", "A-", "2024-")) + self._digits(self.random.choice((6, 8, 9, 12, 14, 16)))

    def _make_ticket(self) -> str:
        return f"OPS-{self.random.randint(100, 99999)}"

    def _make_tracking(self) -> str:
        return self.random.choice(("1Z", "JD", "")) + self._digits(self.random.choice((13, 16, 18)))

    def _make_version(self) -> str:
        return ".".join(str(self.random.randint(0, 30)) for _ in range(3)) + self.random.choice(
            ("", "-rc1", "+build.7")
        )

    def _make_sha(self) -> str:
        return f"{self.random.getrandbits(160):040x}"[: self.random.choice((8, 12, 40))]

    def _make_uuid(self) -> str:
        return str(self._fakes[0].uuid4())

    def _make_mac(self) -> str:
        return str(self._fakes[0].mac_address())

    def _make_epoch(self) -> str:
        return str(self.random.randint(1_600_000_000, 1_800_000_000)) + self.random.choice(("", "000", "123456"))

    def _make_float(self) -> str:
        return repr(self.random.random() * 10 ** self.random.randint(0, 3))

    def _make_flight(self) -> str:
        return f"{self.random.choice(('LH', 'AF', 'UA'))}{self.random.randint(10, 9999)}"

    def _make_booking(self) -> str:
        return "".join(self.random.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(6))

    def _make_part(self) -> str:
        return f"{self._digits(3)}-{self._digits(4)}-{self._digits(3)}/{self._digits(2)}"

    def _make_isbn(self) -> str:
        return str(self._fakes[0].isbn13())

    def _make_ean(self) -> str:
        return str(self._fakes[0].ean13())


def documents(seed: int, count: int) -> list[Sample]:
    """So many documents, mostly of prose.

    Args:
        seed: Equal seeds give equal documents, for one release of Faker and phonenumbers and one `PYTHONHASHSEED`.
    """
    inventor = Inventor(seed)
    makers = (_prose, _prose, _log, _csv, _json)
    return [_filled(inventor.random.choice(makers)(inventor.random), inventor) for _ in range(count)]


def records(seed: int, count: int) -> list[Sample]:
    """So many log lines, tables and JSON texts, where hardly a word is neither a number nor an address."""
    inventor = Inventor(seed)
    makers = (_log, _csv, _json)
    return [_filled(inventor.random.choice(makers)(inventor.random), inventor) for _ in range(count)]


def _seeded(maker: Callable[[str], Any], locales: tuple[str, ...], seed: int) -> list[Any]:
    fakes = [maker(locale) for locale in locales]
    for number, fake in enumerate(fakes):
        fake.seed_instance(seed * 1000 + number)
    return fakes


def _prose(choice: random.Random) -> str:
    parts = [choice.choice(PROSE) for _ in range(choice.randint(1, 4))]
    parts += ["{words}"] * choice.randint(1, 4)
    choice.shuffle(parts)
    return " ".join(parts)


def _log(choice: random.Random) -> str:
    return "\n".join(choice.choice(LOG_LINES) for _ in range(choice.randint(1, 4)))


def _csv(choice: random.Random) -> str:
    return "\n".join(choice.choice((",", ";", "\t")).join(choice.choice(RECORDS)) for _ in range(choice.randint(1, 4)))


def _json(choice: random.Random) -> str:
    rows = [dict(zip(("a", "b", "c"), choice.choice(RECORDS), strict=True)) for _ in range(choice.randint(1, 3))]
    return json.dumps(rows, separators=choice.choice(((",", ":"), (", ", ": "))))


def _filled(template: str, inventor: Inventor) -> Sample:
    """The template with its fields filled in and labelled."""
    parts: list[str] = []
    labels: list[Label] = []
    at = end = 0
    for match in _FIELD.finditer(template):
        before, value = template[end : match.start()], inventor.value(match[1])
        at += len(before)
        if match[1] in LABELS:
            labels.append(Label(at, at + len(value), match[1]))
        parts += [before, value]
        at += len(value)
        end = match.end()
    return Sample("".join([*parts, template[end:]]), tuple(labels))
