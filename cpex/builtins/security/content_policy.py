"""The content policy: words and patterns that must not pass, in any string of what an agent sends or gets."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from cpex.builtins.content import GUARDED_HOOKS
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.bounded import BoundedSettings, gathered, too_large
from cpex.builtins.security.content_rules import DEFAULT_RULES, ContentRule
from cpex.builtins.security.matching import RuleSet
from cpex.builtins.text import Leaf
from cpex.framework import PluginConfig, PluginResult, PluginViolation

__all__ = ["ContentPolicyPlugin", "ContentPolicySettings"]

CODE = "CONTENT_POLICY_VIOLATION"


class ContentPolicySettings(BoundedSettings):
    """What must not pass, and how hard is looked for it."""

    rules: list[ContentRule] = Field(default=[])
    """Rules with a name, tried in this order, before the built-in ones."""
    blocked_words: list[str] = Field(default=[])
    """Short for a rule `blocked_words` with these words."""
    blocked_patterns: list[str] = Field(default=[])
    """Short for a rule `blocked_patterns` with these patterns."""
    default_rules: bool | list[str] = True
    """Whether the built-in rules apply, or the names of those that do."""
    normalise: bool = True
    """Whether look-alike letters, wide forms and invisible characters are seen through."""

    @field_validator("default_rules")
    @classmethod
    def _check_names(cls, value: bool | list[str]) -> bool | list[str]:
        known = [rule.name for rule in DEFAULT_RULES]
        if isinstance(value, list) and (unknown := [name for name in value if name not in known]):
            raise ValueError(f"unknown built-in rules {unknown}; known: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _check_not_idle(self) -> Self:
        if not (self.rules or self.blocked_words or self.blocked_patterns or self.default_rules):
            raise ValueError("no rule is left, so nothing is looked for; give it `rules`, or take the plugin out")
        return self

    def all_rules(self) -> list[ContentRule]:
        """Every rule that applies, in the order of trial.

        Raises:
            ValueError: Two rules have one name.
        """
        rules = list(self.rules)
        if self.blocked_words:
            rules.append(ContentRule(name="blocked_words", words=self.blocked_words))
        if self.blocked_patterns:
            rules.append(ContentRule(name="blocked_patterns", patterns=self.blocked_patterns))
        chosen = self.default_rules
        rules += [rule for rule in DEFAULT_RULES if chosen is True or (chosen and rule.name in chosen)]
        names = [rule.name for rule in rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"content rules share the names {twice}; give each its own, or leave out the built-in one")
        return rules


class ContentPolicyPlugin(Guard):
    """Denies content that breaks a rule, and says which rule and where, never what it was.

    Searches every string and dict key of the content, at any depth, on every hook that the configuration lists, also in
    messages. Codes:
    `CONTENT_POLICY_VIOLATION`, with `details` of `rule`, `path` and `hook`; `CONTENT_TOO_LARGE` when there is more than
    will be searched. The time grows linearly with the text, whatever it says.

    Source: docs/plugins/content_policy.md.
    """

    settings_model = ContentPolicySettings
    guards = GUARDED_HOOKS

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and compile the rules.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: A pattern cannot be run in linear time, or two rules share a name.
        """
        super().__init__(config)
        self._settings = ContentPolicySettings.model_validate(config.config or {})
        self._rules = RuleSet(self._settings.all_rules(), normalise=self._settings.normalise)

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Deny the payload when any of its text breaks a rule."""
        # Of a message that is only evaluated the host says which hook it would have passed.
        hook = f"cmf.{call.stage}" if call.hook == "evaluate" != call.stage else call.hook
        texts, excess = gathered(call.texts(), self._settings.max_text_chars)
        if self._rules.may_be_broken((leaf.text for leaf in texts), hook):
            for leaf in texts:
                if rule := self._rules.first_broken(leaf, hook):
                    return _denied(rule, leaf, call.hook)
        return self._oversize(excess) if excess else PluginResult()

    def _oversize(self, what: str) -> PluginResult[Any]:
        if self._settings.on_oversize == "allow":
            return PluginResult(metadata={self.name: {"not_searched": what}})
        return too_large("content policy", what, self._settings.max_text_chars)


def _denied(rule: ContentRule, leaf: Leaf, hook: str) -> PluginResult[Any]:
    violation = PluginViolation(
        reason=f"Content rule '{rule.name}' matched",
        description=rule.description,
        code=CODE,
        details={"rule": rule.name, "path": leaf.path, "hook": hook},
    )
    return PluginResult(continue_processing=False, violation=violation)
