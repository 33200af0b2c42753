"""A host's extensions with something in every slot, and what its tests share."""

from cpex.framework.extensions import (
    AgentExtension,
    ConversationContext,
    DataPolicy,
    DelegationExtension,
    DelegationHop,
    Extensions,
    FrameworkExtension,
    HttpExtension,
    LLMExtension,
    MCPExtension,
    MetaExtension,
    ObjectSecurityProfile,
    RequestExtension,
    SecurityExtension,
    SubjectExtension,
    ToolMetadata,
)
from cpex.framework.extensions.tiers import (
    filter_extensions,
    merge_extensions,
)

NONE: frozenset[str] = frozenset()


def hop(subject: str) -> DelegationHop:
    return DelegationHop(subject_id=subject, subject_type="agent")


def chain_of(*subjects: str) -> DelegationExtension:
    delegation = DelegationExtension()
    for subject in subjects:
        delegation = delegation.with_new_hop(hop(subject))
    return delegation


def host() -> Extensions:
    return Extensions(
        request=RequestExtension(request_id="r-1"),
        agent=AgentExtension(agent_id="bot", conversation=ConversationContext(topics=["billing"])),
        http=HttpExtension(headers={"Authorization": "Bearer s3cret"}),
        security=SecurityExtension(
            labels={"PII"},
            classification="internal",
            subject=SubjectExtension(
                id="ada",
                type="user",
                roles={"admin"},
                permissions={"pay"},
                teams={"red"},
                claims={"iss": "idp"},
            ),
            objects={"pay": ObjectSecurityProfile(permissions=["pay"])},
            data={"pay": DataPolicy(apply_labels=["FIN"])},
        ),
        delegation=chain_of("ada", "bot"),
        mcp=MCPExtension(tool=ToolMetadata(name="pay", annotations={"hints": {"readOnly": False}})),
        llm=LLMExtension(capabilities=["vision"]),
        framework=FrameworkExtension(metadata={"node": {"id": 1}}),
        meta=MetaExtension(properties={"k": "v"}),
        custom={"notes": ["first"]},
    )


def shown(extensions: Extensions, *capabilities: str) -> Extensions:
    view = filter_extensions(extensions, frozenset(capabilities))
    assert view is not None
    return view


def merged(original: Extensions, output: Extensions, *capabilities: str) -> Extensions:
    result = merge_extensions(original, output, frozenset(capabilities), "tagger")
    assert result is not None
    return result
