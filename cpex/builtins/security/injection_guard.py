"""The injection guard: instructions to a model that hide in what tools, resources and prompts give back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from cpex.builtins.content import AFTER_HOOKS, MESSAGE_HOOKS, content_of, is_message_payload
from cpex.builtins.globs import glob_matcher
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.bounded import BoundedSettings, Texts, gathered, too_large
from cpex.builtins.security.hidden_text import without_hidden
from cpex.builtins.security.injection_patterns import PATTERNS, WEIGHTS, InjectionPattern
from cpex.builtins.security.injection_score import InjectionScorer, Verdict
from cpex.builtins.security.pattern_set import compile_linear, idle_border
from cpex.builtins.targets import targets_of
from cpex.builtins.text import Leaf, leaves, rewrite
from cpex.framework import PluginConfig, PluginPayload, PluginResult, PluginViolation

__all__ = ["InjectionGuardPlugin", "InjectionGuardSettings"]

CODE = "PROMPT_INJECTION"
_MAX_NAMED = 10
"""Signals that a denial names."""
_UNTRUSTED_PARTS = ("tool_result", "resource", "prompt_result", "document")
"""Parts of a message that bring what somebody else wrote. What users and models say is not looked at."""
_SAID_PARTS = ("text", "thinking")
_FETCHED = ("tool_post_invoke", "prompt_post_fetch", "resource_post_fetch")
"""Where a message is what a tool or server has answered, whatever its parts are called."""


class CustomPattern(BaseModel, extra="forbid", frozen=True):
    """A pattern of the operator's."""

    name: str = Field(min_length=1, max_length=64)
    """The signal that it is; several may share one."""
    pattern: str = Field(min_length=1)
    """RE2 syntax, in any case."""
    weight: float = Field(default=0.6, gt=0, le=1)
    """How far it goes towards certainty, 0 to 1; of several patterns of one name the last counts."""


class InjectionGuardSettings(BoundedSettings):
    """What is suspicious, how much of it is too much, and what happens then."""

    threshold: float = Field(default=0.6, gt=0, le=1)
    """Score from which content is not passed on as it is."""
    action: Literal["deny", "clean", "report"] = "deny"
    """`clean` takes out what is hidden and denies what is still suspicious; `report` only tells."""
    weights: dict[str, float] = Field(default={})
    """Weights of built-in signals, 0 to 1, instead of their own; 0 switches one off."""
    patterns: list[CustomPattern] = Field(default=[])
    """More patterns."""
    trusted: list[str] = Field(default=[])
    """Names or globs of tools, prompts and resources whose content is not looked at."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in weights if name not in WEIGHTS]:
            raise ValueError(f"no signals are called {unknown}; known: {', '.join(WEIGHTS)}")
        if wrong := [name for name, weight in weights.items() if not 0 <= weight <= 1]:
            raise ValueError(f"weights of {wrong} are not between 0 and 1")
        return weights

    def scorer(self) -> InjectionScorer:
        """What judges texts by these settings.

        Raises:
            ValueError: A pattern is not in RE2 syntax.
        """
        # Texts are read in small letters, and a pattern with a capital would be found in none of them.
        own = [InjectionPattern(each.name, f"(?i){each.pattern}") for each in self.patterns]
        weights = {**WEIGHTS, **self.weights, **{each.name: each.weight for each in self.patterns}}
        _check_patterns(self.patterns)
        return InjectionScorer([*PATTERNS, *own], weights)


class InjectionGuardPlugin(Guard):
    """Denies content from tools, resources and prompts that tries to instruct the model that will read it.

    Adds up signals: phrases that override instructions, role markers, requests to hide something or to send it
    somewhere, invisible characters, and the same in comments and encodings. Code `PROMPT_INJECTION`, with `details` of
    `score` and `signals`, never the text. These are heuristics: they raise the price of an attack and prove nothing.

    Source: docs/plugins/injection_guard.md.
    """

    settings_model = InjectionGuardSettings
    guards = (*AFTER_HOOKS, *MESSAGE_HOOKS)

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and compile the patterns.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: A pattern is not in RE2 syntax.
        """
        super().__init__(config)
        self._settings = InjectionGuardSettings.model_validate(config.config or {})
        self._scorer = self._settings.scorer()
        self._trusts = glob_matcher(self._settings.trusted)

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Judge what the call brings."""
        settings = self._settings
        texts = self._gathered(call)
        verdict = self._scorer.judge(texts.leaves)
        told = {"score": verdict.score, "signals": [signal.name for signal in verdict.signals]}
        metadata = {self.name: told} if verdict.signals else {}
        if texts.excess:
            if settings.on_oversize == "deny" and settings.action != "report":
                return too_large("injection guard", texts.excess, settings.max_text_chars)
            metadata = {self.name: {**metadata.get(self.name, {}), "not_searched": texts.excess}}
        if settings.action == "clean":
            return self._cleaned(call, verdict, metadata)
        if verdict.score < settings.threshold or settings.action == "report":
            return PluginResult(metadata=metadata)
        return _denial(verdict, metadata)

    def _cleaned(self, call: GuardedCall, verdict: Verdict, metadata: dict[str, Any]) -> PluginResult[Any]:
        """Take out what is hidden, and judge again what is left."""
        payload = self._without_hidden(call)
        if payload is not None:
            metadata = {self.name: {**metadata.get(self.name, {}), "cleaned": True}}
            left = self._gathered(GuardedCall(call.hook, payload, call.context, call.extensions))
            verdict = self._scorer.judge(left.leaves)
        if verdict.score >= self._settings.threshold:
            return _denial(verdict, metadata)
        return PluginResult(modified_payload=payload, metadata=metadata)

    def _without_hidden(self, call: GuardedCall) -> PluginPayload | None:
        if is_message_payload(call.payload):
            from cpex.framework.cmf.rewrite import rewrite_text

            places = tuple(f"{place}." for place in self._untrusted_places(call))
            message = rewrite_text(
                call.payload.message,
                lambda leaf: without_hidden(leaf.text) if leaf.path.startswith(places) else leaf.text,
            )
            changed = message is not call.payload.message
            return call.payload.model_copy(update={"message": message}) if changed else None
        update: dict[str, Any] = {}
        for name, value in content_of(call.payload).values(call.payload).items():
            if (clean := rewrite(value, _Cleaning(), keys=True)) is not value:
                update[name] = clean
        return call.payload.model_copy(update=update) if update else None

    def _untrusted_places(self, call: GuardedCall) -> Iterator[str]:
        """Where in a message there is something that somebody else wrote."""
        if not is_message_payload(call.payload):
            return
        message = call.payload.message
        # SECURITY: a tool's answer is not always in a part that is called so; nobody else speaks here.
        fetched = message.role == "tool" or call.stage in _FETCHED
        kinds = _UNTRUSTED_PARTS + (_SAID_PARTS if fetched else ())
        trusted = {target.place for target in targets_of(call.hook, call.payload) if self._trusts(target.name)}
        for view in message.iter_views():
            if view.kind.value in kinds and view.path not in trusted:
                yield view.path

    def _texts(self, call: GuardedCall) -> Iterator[Leaf]:
        if is_message_payload(call.payload):
            places = tuple(f"{place}." for place in self._untrusted_places(call))
            return (leaf for leaf in call.texts() if places and leaf.path.startswith(places))
        if any(self._trusts(target.name) for target in targets_of(call.hook, call.payload)):
            return iter(())
        values = content_of(call.payload).values(call.payload)
        return chain.from_iterable(leaves(value, name) for name, value in values.items())

    def _gathered(self, call: GuardedCall) -> Texts:
        return gathered(self._texts(call), self._settings.max_text_chars)


class _Cleaning:
    """Takes out what is hidden, as `cpex.builtins.text.rewrite` wants it."""

    def text(self, text: str, key: str) -> str:
        return without_hidden(text)

    def number(self, number: int, key: str) -> int | str:
        return number


def _check_patterns(patterns: list[CustomPattern]) -> None:
    for each in patterns:
        try:
            compiled = compile_linear(each.pattern)
        except ValueError as error:
            raise ValueError(f"pattern `{each.pattern}` of signal `{each.name}` is {error}") from error
        if letter := idle_border(each.pattern):
            raise ValueError(
                f"pattern `{each.pattern}` of signal `{each.name}` has `\\b` beside `{letter}`, where it never holds:"
                r" RE2 knows ASCII letters only; write `(?:^|\PL)` before and `(?:\PL|$)` after it"
            )
        if compiled.search(b""):
            raise ValueError(f"pattern `{each.pattern}` of signal `{each.name}` matches everything")


def _denial(verdict: Verdict, metadata: dict[str, Any]) -> PluginResult[Any]:
    names = [signal.name for signal in verdict.signals]
    places = [{"signal": signal.name, "path": signal.path} for signal in verdict.signals[:_MAX_NAMED]]
    violation = PluginViolation(
        reason=f"Content looks like instructions to the model: {', '.join(names)}",
        description="Content from outside must inform the model, not instruct it; it is not passed on.",
        code=CODE,
        details={"score": verdict.score, "signals": places},
    )
    numbers = {"score": verdict.score, "signals": len(names)}
    return PluginResult(continue_processing=False, violation=violation, metadata=metadata, denial_metadata=numbers)
