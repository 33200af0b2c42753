"""What plugins are told about a request."""

import copy
import pickle
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError, field_validator

from cpex.framework.models import GlobalContext, PluginContext, UserContext


def context(**values):
    return PluginContext(global_context=GlobalContext(**{"request_id": "r", **values}))


def test_containers_are_fresh_for_every_request():
    first, second = GlobalContext(request_id="1"), GlobalContext(request_id="2")
    first.state["a"] = 1
    first.metadata["b"] = 2

    assert (second.state, second.metadata) == ({}, {})


@pytest.mark.parametrize(
    "given",
    [
        {"request_id": "r"},
        {"tenant_id": "t", "request_id": "r"},
        {"request_id": "r", "user": "u", "tenant_id": "t", "server_id": "s"},
        {"request_id": "r", "user": None},
        {"request_id": "r", "user": {"id": 1}, "state": {"k": [1]}},
        {"request_id": "r", "content_type": "text/plain"},
        {"request_id": "r", "unknown": "x"},
    ],
)
def test_however_it_is_made_a_context_is_what_validation_makes_of_it(given):
    made, validated = GlobalContext(**given), GlobalContext.model_validate(given)

    assert repr(made) == repr(validated)
    assert made == validated
    assert made.model_fields_set == validated.model_fields_set
    assert list(made.model_dump()) == list(GlobalContext.model_fields)
    assert GlobalContext(**given).model_dump_json(exclude_unset=True) == validated.model_dump_json(exclude_unset=True)
    assert pickle.loads(pickle.dumps(GlobalContext(**given))) == copy.deepcopy(GlobalContext(**given)) == validated
    assert GlobalContext(**given).state == validated.state


@pytest.mark.parametrize("given", [{}, {"user": "u"}, {"request_id": None}, {"request_id": 1}, {"request_id": b"r"}])
def test_a_context_without_a_proper_request_id_is_refused_or_converted_as_validation_does(given):
    def outcome(make):
        try:
            return repr(make(given))
        except ValidationError as error:
            return error.errors(include_url=False)

    assert outcome(lambda values: GlobalContext(**values)) == outcome(GlobalContext.model_validate)


def test_a_subclass_of_the_context_is_validated_with_all_that_it_adds():
    class Own(GlobalContext):
        region: str = "eu"

        @field_validator("request_id")
        @classmethod
        def shout(cls, value):
            return value.upper()

    assert (Own(request_id="r").request_id, Own(request_id="r").region) == ("R", "eu")


def test_what_the_host_assigns_to_a_context_is_there_for_every_reader():
    made = GlobalContext(request_id="r")
    made.user = "u"
    made.state["k"] = 1

    assert made.model_dump()["user"] == "u"
    assert made.state == {"k": 1}
    assert made.model_fields_set == {"request_id", "user"}


def test_content_types_are_short_and_printable():
    assert GlobalContext(request_id="1", content_type="a" * 200).content_type == "a" * 200
    with pytest.raises(ValidationError, match="too long"):
        GlobalContext(request_id="1", content_type="a" * 201)
    with pytest.raises(ValidationError, match="invalid characters"):
        GlobalContext(request_id="1", content_type="text/plain\r\nX: y")


@pytest.mark.parametrize(
    ("values", "email"),
    [
        ({"user": "a@x"}, "a@x"),
        ({"user": {"email": "b@x"}}, "b@x"),
        ({"user": {"id": 1}}, None),
        ({}, None),
        ({"user": "a@x", "user_context": UserContext(user_id="1", email="c@x")}, "c@x"),
        ({"user": "a@x", "user_context": UserContext(user_id="1")}, None),
    ],
)
def test_the_e_mail_address_is_the_user_contexts_where_there_is_one(values, email):
    assert context(**values).user_email == email


def test_groups_are_those_of_the_user_context():
    user = UserContext(user_id="1", groups=["g"], authenticated_at=datetime(2030, 1, 1, tzinfo=UTC))

    assert context(user_context=user).user_groups == ["g"]
    assert context(user_context=user).user_context == user
    assert context().user_groups == []


async def test_state_is_kept_until_it_is_cleaned_up():
    mine = context()
    assert mine.is_empty()

    mine.set_state("a", 1)
    mine.metadata["b"] = 2

    assert (mine.get_state("a"), mine.get_state("missing", 7), mine.is_empty()) == (1, 7, False)
    await mine.cleanup()
    assert (mine.state, mine.metadata, mine.is_empty()) == ({}, {}, True)


def test_a_context_with_shared_state_is_not_empty_and_shared_metadata_do_not_count():
    assert not context(state={"a": 1}).is_empty()
    assert context(metadata={"a": 1}).is_empty()
