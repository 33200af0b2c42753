"""What instructions to a model look like that stand where only data should: signals, their weights and patterns.

The patterns are read against text in small letters, in compatibility form, with look-alikes made Latin and without
invisible characters. They are few on purpose. Each is worth something only together with others, unless it is of a kind
that hardly any honest document holds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PATTERNS", "WEIGHTS", "InjectionPattern"]

WEIGHTS: dict[str, float] = {
    "instruction_override": 0.6,
    "new_instructions": 0.4,
    "role_marker": 0.5,
    "forged_message": 0.6,
    "task_reference": 0.4,
    "task_condition": 0.4,
    "dialogue": 0.25,
    "addressed_to_model": 0.3,
    "secrecy": 0.4,
    "exfiltration": 0.5,
    "image_with_data": 0.3,
    "tool_directive": 0.4,
    "output_directive": 0.35,
    "judgement_override": 0.4,
    "hidden_instruction": 0.6,
    "encoded_instruction": 0.7,
    "invisible_text": 0.8,
    "zero_width": 0.3,
    "bidi_override": 0.3,
}
"""How far each signal alone goes towards certainty, 0 to 1. They add up as independent evidence does."""


@dataclass(frozen=True, slots=True)
class InjectionPattern:
    """One pattern of a signal."""

    signal: str
    pattern: str
    """In RE2 syntax, for text in small letters."""


_DROP = (
    r"(?:ignore|disregard|forget|override|overrule|bypass|discard|neglect|do not follow|don'?t follow|stop following)"
)
_WEAK = r"(?:all|any|every|each|of|the|these|those|that)"
_EARLIER = r"(?:previous(?:ly)?|prior|preceding|above|earlier|former|existing|initial|original|your|my)"
_ORDERS = (
    r"(?:instructions?|i[a-z]{0,3}str[a-z]{0,4}ions?|prompts?|directions?|directives?|rules|guidelines|commands?|orders|constraints"
    r"|context|messages?"
    r"|safety|polic(?:y|ies))"
)
_MODEL = (
    r"(?:ai|a\.i\.|llms?|language models?|assistants?|chat ?bots?|agents?|gpt|chatgpt|claude|gemini|copilot|models?)"
)
_HIDE = r"(?:tell|inform|mention|notify|alert|show|reveal|disclose|say|warn|let|report)"
_SEND = r"(?:send|forward|post|e-?mail|upload|exfiltrate|leak|transmit|submit|append|include|encode|embed|share|copy)"
_LOOT = (
    r"(?:system prompt|conversation|chat history|messages?|credentials?|passwords?|secrets?|api keys?"
    r"|private keys?|ssh key"
    r"|access tokens?|environment variables|\.env|session|cookies?|user'?s? (?:data|details|e-?mails?"
    r"|files|information)"
    r"|contacts|documents|files?|e-?mails?|contents?|memory)"
)

_TEXTS: dict[str, tuple[str, ...]] = {
    "instruction_override": (
        rf"\b{_DROP}\s+(?:{_WEAK}\s+){{0,3}}(?:{_EARLIER}\s+){{1,2}}(?:\w+\s+){{0,2}}{_ORDERS}\b",
        rf"\b{_DROP}\s+(?:all|any)\s+(?:\w+\s+){{0,2}}(?:instructions?|prompts?|directives?|guidelines|safety)\b",
        r"\b(?:ignore|disregard)\s+(?:all\s+|any\s+|the\s+)?(?:instructions|directions)\b",
        r"\b(?:ignore|disregard|forget)\s+(?:everything|all|anything|what)\s+"
        r"(?:(?:that\s+)?(?:you(?:'ve| have| were| are)?|was|is|i|has been)\s+(?:\w+\s+){0,3})?"
        r"(?:above|before|previously|so far)\b",
        rf"\b(?:previous|prior|above|earlier|original)\s+{_ORDERS}\s+(?:are|is|were|have been)\s+(?:now\s+)?"
        r"(?:void|obsolete|cancelled|canceled|revoked|superseded|replaced|outdated|invalid|no longer)",
        # German, French, Spanish, Portuguese, Italian, Russian, Chinese, Japanese.
        r"\bignorier\w*\s+(?:alle\s+|die\s+|deine\s+|bitte"
        r"\s+)*(?:vorherigen|bisherigen|obigen|vorigen|fruheren|früheren)\s+"
        r"(?:anweisungen|instruktionen|befehle|regeln|vorgaben)",
        r"\b(?:ignore[zr]?|oublie[zr]?)\s+(?:toutes?\s+)?(?:les|tes|vos)"
        r"\s+(?:instructions|consignes|regles|règles)\s+"
        r"(?:precedentes|précédentes|anterieures|antérieures|ci-dessus)",
        r"\b(?:ignor[ae]|olvid[ae]|omit[ae])\s+(?:todas\s+)?(?:las|tus|sus)"
        r"\s+(?:instrucciones|ordenes|órdenes|reglas)\s+"
        r"(?:anteriores|previas)",
        r"\b(?:ignor[ae]|esque[cç]a)\s+(?:todas\s+)?(?:as|suas)\s+(?:instrucoes|instruções|regras|ordens)\s+"
        r"(?:anteriores|previas|prévias)",
        r"\b(?:ignora|dimentica)\s+(?:tutte\s+)?(?:le|tue)\s+(?:istruzioni|regole)\s+(?:precedenti|sopra)",
        r"игнориру\pL*\s+(?:все\s+)?(?:предыдущие|прежние)\s+(?:инструкции|указания|команды)",
        r"忽略.{0,6}(?:之前|以上|先前|前面|上述).{0,6}(?:指令|指示|提示|说明|規則|规则)",
        r"(?:以前|前|上記|これまで)の.{0,6}(?:指示|命令|指令).{0,6}(?:無視|忘れ)",
    ),
    "new_instructions": (
        r"\b(?:new|updated|revised|real|actual|true|important|urgent|additional)\s+(?:system\s+)?"
        r"(?:instructions?|prompt|task|directives?|objective|orders)\s*(?:for"
        r"\s+[\w ]{1,30})?(?::|follows?\b|are\b|is\b)",
        r"\byour\s+(?:new|real|actual|true|only)\s+(?:task|goal|objective|job|role|mission|purpose|instructions?)\b",
        r"\bfrom now on,?\s+you\b|\byou\s+(?:will|must|shall)\s+now\b|\byou are now"
        r"\s+(?:a|an|in|the|no longer|dan|free)\b",
        r"\b(?:pretend|act|behave|respond)\s+(?:to be\s+|as\s+if\s+|as\s+though\s+)(?:you|an?"
        r"\s+(?:unrestricted|admin))",
        r"\b(?:enter|enable|activate|switch to)\s+(?:developer|debug|admin|god|dan|jailbreak|unrestricted"
        r"|maintenance)\s+mode\b",
    ),
    "role_marker": (
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|begin_of_text)\|>",
        r"<\s*/?\s*end of (?:session|conversation|document|text|prompt|file|context)\s*>",
        r"\[/?inst\]|<</?sys>>|<start_of_turn>|<end_of_turn>",
        r"</?(?:system|system_prompt|system-reminder|tool_result|function_results?|function_calls|antml:\w+"
        r"|instructions)>",
        r"(?m)^\s*(?:#{1,4}\s*|\*{1,2})?(?:system|developer)(?:"
        r"\s+(?:prompt|message|instructions?|override|note))?\s*\*{0,2}:",
        r"(?m)^\s*(?:#{1,4}\s*)(?:assistant|instructions?|human|user)\s*:",
        r"(?m)^\s*[-=*]{3,}\s*(?:end|begin|start)\s+(?:of"
        r"\s+)?(?:system|tool|document|context|data|user|results?|output)\b",
    ),
    "forged_message": (
        # A channel of its own that the text makes up; in brackets, as no honest writer names one.
        r"[(\[{<]{1,3}\s*(?:system|developer|admin(?:istrator)?|operator|root)[ _-](?:message|prompt|instructions?"
        r"|override|notice|note|command|directive)s?\s*[)\]}>]{1,3}",
    ),
    "task_reference": (
        # What the model was asked to do; a document that was fetched for it does not know of that.
        r"\b(?:the|your|my)\s+(?:original|initial|first|current|main|actual)\s+(?:task|request|query)\s+"
        r"(?:that\s+)?(?:i|we|the user|you)\s+(?:gave|asked|assigned|received|were given)\b",
        r"\b(?:the|any)\s+(?:tasks?|requests?|queries|questions?)\s+(?:that\s+)?(?:i|the user|your user|your human)\s+"
        r"(?:has\s+|have\s+)?(?:gave|given|asked|assigned)(?:\s+(?:to\s+)?you)?\b",
        r"\b(?:solve|complete|finish|continue(?: with)?|return to|resume|go back to|proceed with)\s+"
        r"(?:the|your)\s+(?:original|initial|user'?s|user)\s+(?:task|request|query|question)\b",
    ),
    "task_condition": (
        r"\bbefore\s+(?:you\s+(?:can|may|will|are able to|start to|begin to)?\s*)?"
        r"(?:solv|complet|continu|proceed|finish|perform|answer|respond|fulfil|tackl)\w*\b"
        r".{0,80}\b(?:following|first|must|need to|have to|required)\b",
        r"\b(?:in order to|to be able to)\s+(?:solve|complete|finish|fulfil|answer|continue with)\s+"
        r"(?:the|your|this)\s+(?:\w+\s+){0,2}(?:task|request|query|question)\b",
        r"\bafter (?:you (?:do|did|have done)|doing|completing) (?:that|this|so|it),?\s+"
        r"(?:you\s+(?:can|may|should|must)|continue|proceed|solve|complete)\b",
    ),
    "dialogue": (r"(?m)^\s*(?:assistant|user|human|ai)\s*:\s",),
    "addressed_to_model": (
        rf"\b(?:dear|attention|note to|notice to|message (?:to|for)|instructions? (?:to|for)|hey|hello|hi)\s*,?\s+"
        rf"(?:the |all |any |every )?(?:\w+ )?{_MODEL}\b",
        r"\b(?:note|notice|message|attention|instructions?)\s*(?:to|for|,)?\s+(?:all\s+"
        r"|any\s+)?automated\s+[\w -]{0,30}"
        r"(?:software|systems?|tools?|reviewers?|screeners?|analy[sz]ers?|readers?|agents?)\b",
        rf"\bif you(?:'re| are)\s+(?:an?\s+)?(?:\w+\s+)?{_MODEL}\b",
        rf"\b(?:all |any |every )?(?:ai|llm|automated)\s+(?:{_MODEL}|systems?)?\s*"
        r"(?:must|should|have to|are required to|reading this|processing this)\b",
        rf"\bas an?\s+(?:ai|{_MODEL}),?\s+you\b",
        rf"\bto you,\s+(?:the\s+|an?\s+)?(?:\w+\s+){{0,2}}{_MODEL}\b",
    ),
    "output_directive": (
        r"\b(?:simply|only|just|always|instead,?|you must|you should|please)\s+(?:respond|reply|answer"
        r"|output|print|say|write)"
        r"(?:\s+only)?(?:\s+with)?\s*[:\"'\x{201c}\x{ab}`]",
        r"\b(?:respond|reply|answer)\s+(?:only|exactly|simply)\s+with\b|\band (?:output|print|report"
        r"|respond with|say):",
        r"\b(?:respond|reply|answer)\s+with\s+(?:only|just|nothing but)\b|\b(?:only|just) the following text\b",
        r"\bif (?:the |a |any )?(?:user|human|customer|anyone|somebody|asked)\b.{0,60}\b(?:respond|reply"
        r"|answer|say|tell)\b",
        r"\byou (?:may|must|shall|can)\s*not\s+deviate\b|\bdo(?: not|n'?t) deviate from (?:this|these)\b",
    ),
    "judgement_override": (
        r"\b(?:ignore|disregard|override|overlook|bypass)\s+(?:all\s+|any\s+|every\s+|the\s+)?(?:manual"
        r"|negative|positive|usual|normal"
        r"|standard|human|other)\s+(?:\w+\s+){0,2}(?:indicators?|scoring|scores?|criteria|checks?|concerns"
        r"|evaluations?|reviews?"
        r"|assessments?|findings|signals|rankings?|results?)\b",
        r"\bdo(?: not|n'?t)\s+(?:evaluate|assess|score|rank|judge|grade|moderate|flag)\s+(?:this|the|my|our"
        r"|any|these)\b",
        r"\b(?:ignore|disregard)\s+(?:all|any|every)\s+(?:\w+\s+){0,2}(?:info|information|content|text|data"
        r"|documents?|else)\b"
        r"|\bignore (?:them|it|this|that|these|those) and (?:instead|only|just)\b",
        r"\b(?:focus (?:exclusively|only|solely) on|give (?:this|it|me|us) (?:a|the) (?:highest|perfect|top"
        r"|full|maximum)"
        r"|must (?:be )?(?:rank|rate|score)"
        r"(?:d|ed)? (?:first|highest|as))\b",
    ),
    "secrecy": (
        rf"\b(?:do not|don'?t|never|without)\s+(?:ever"
        rf"\s+)?(?:{_HIDE}|{_HIDE}ing|asking|telling|informing|notifying|showing)\s+"
        r"(?:\w+\s+){0,4}(?:the\s+)?(?:user|human|customer|operator|anyone|anybody|them|him|her)\b",
        r"\b(?:keep|this (?:is|must be|should be))\s+(?:\w+\s+){0,3}(?:secret|hidden|confidential)\s+from"
        r"\s+(?:the\s+)?"
        r"(?:user|human|customer)\b",
        r"\bthe (?:user|human|customer) (?:must|should|can)\s*(?:not|never|n'?t) (?:know|see|notice|find out"
        r"|be told)\b",
    ),
    "exfiltration": (
        rf"\b{_SEND}\s+(?:\w+\s+){{0,5}}{_LOOT}\s+(?:\w+\s+){{0,8}}(?:to|at|via|in|into|with|through)\s+(?:\w+"
        rf"\s+){{0,4}}"
        r"(?:https?://|\S+@\S+\.\w|\S+\.(?:com|net|org|io|dev|xyz|ru|cn|app|site)\b|this (?:url|address"
        r"|endpoint|server))",
        r"\b(?:reveal|print|output|repeat|show|display|disclose|return|dump|list|leak|tell me)\s+(?:\w+\s+){0,3}"
        r"(?:system prompt|initial (?:prompt|instructions)|hidden (?:prompt|instructions)"
        r"|your (?:instructions|prompt|rules"
        r"|configuration|secrets|api keys?|environment variables))\b",
        rf"\b(?:read|open|cat|load|fetch|get|find|search for|collect|gather)\s+(?:\w+"
        rf"\s+){{0,5}}(?:\S{{0,40}}(?:\.ssh|id_rsa|\.env|"
        rf"\.aws|credentials|passwd)\S{{0,40}}|{_LOOT})\s+(?:and|then|,)\s+(?:then\s+)?{_SEND}\b",
    ),
    "image_with_data": (
        r"!\[[^\]\n]*\]\(\s*https?://[^)\s]+[?&][^)\s=]+=[^)\s]*(?:\{|<|\[|\$|%7b|data|prompt|secret|token"
        r"|chat|conversation)",
        r"<img[^>]+src\s*=\s*[\"']?https?://[^>\s\"']+\?[^>\s\"']*(?:\{|\$|data=|prompt=|secret=|token=|chat=)",
    ),
    "tool_directive": (
        rf"\b(?:you (?:must|should|need to|have to|are required to|will)|please|immediately|now|first"
        rf"|instead,?|then|{_MODEL},?)"
        r"\s+(?:\w+\s+){0,2}(?:call|invoke|run|execute|use|trigger)\s+(?:the\s+|your"
        r"\s+)?[`'\"]?[\w.-]{2,60}[`'\"]?\s+"
        r"(?:tool|function|command|api|action|plugin)\b",
        r"\bbefore\s+(?:using|calling|answering|responding|doing)\s+(?:\w+\s+){0,5}(?:you"
        r"\s+)?(?:must|should|always|first)\b",
        r"\b(?:call|invoke|execute|use)\s+[`'\"]?\w{2,60}[`'\"]?\s+with\s+(?:the"
        r"\s+)?(?:arguments?|parameters?|args|input)\b",
        r"\b(?:delete|remove|wipe|drop|erase)\s+(?:all|every|the entire)\s+(?:\w+\s+){0,3}"
        r"(?:files?|records?|data|databases?|tables?|e-?mails?|backups?|accounts?|users?)"
        r"\s+(?:immediately|now|without)\b",
    ),
}

PATTERNS = tuple(InjectionPattern(signal, text) for signal, texts in _TEXTS.items() for text in texts)
