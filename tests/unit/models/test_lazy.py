"""Models that are completed when somebody looks."""

import copy
import pickle

import pytest

from cpex.framework.models.lazy import PENDING, LazyModel, build, complete, raw_dict, set_raw_dict


class Model(LazyModel):
    first: int
    second: list = []


class Filler:
    def __init__(self):
        self.filled = []

    def fields(self):
        return ("first", "second")

    def fill(self, name):
        self.filled.append(name)
        return {"first": 1, "second": [2]}[name]

    def state(self):
        return {"first"}, None, None


def pending(**present):
    model, filler = object.__new__(Model), Filler()
    set_raw_dict(model, {**present, PENDING: filler})
    return model, filler


def test_a_field_is_filled_when_it_is_first_read_and_only_then():
    model, filler = pending()
    assert filler.filled == []

    assert model.second is model.second

    assert filler.filled == ["second"]


@pytest.mark.parametrize(
    "look",
    [
        lambda model: model.model_dump(),
        lambda model: model.model_dump_json(),
        lambda model: model == Model(first=1),
        lambda model: Model(first=1) == model,
        repr,
        dict,
        vars,
        copy.copy,
        copy.deepcopy,
        lambda model: model.model_copy(update={"first": 3}),
        pickle.dumps,
        lambda model: model.model_fields_set,
    ],
)
def test_looking_at_the_whole_completes_it(look):
    model, filler = pending()

    look(model)

    assert sorted(filler.filled) == ["first", "second"]
    assert PENDING not in raw_dict(model)


def test_a_completed_model_is_an_ordinary_one():
    model, _ = pending()
    complete(model)
    complete(model)

    assert model == Model(first=1, second=[2])
    assert model.model_fields_set == {"first"}
    assert model.model_dump() == {"first": 1, "second": [2]}
    assert list(model.model_dump()) == ["first", "second"]


def test_values_that_are_there_already_are_not_made_again():
    model, filler = pending(first=7)

    assert model.model_dump() == {"first": 7, "second": [2]}
    assert filler.filled == ["second"]


def test_a_name_that_is_no_field_is_a_missing_attribute():
    model, filler = pending()

    with pytest.raises(AttributeError, match="'Model' object has no attribute 'third'"):
        model.third
    assert filler.filled == []


def test_a_model_can_be_built_from_values_that_are_known_to_be_valid():
    model = build(Model, {"first": 1, "second": []}, fields_set={"first"})

    assert model == Model(first=1)
    assert model.model_fields_set == {"first"}
