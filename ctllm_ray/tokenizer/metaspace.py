"""Keeps U+2581 in a text apart from spaces, which SentencePiece writes as U+2581 (▁, the metaspace).

SentencePiece decodes every ▁ as a space. So a text is escaped before it is cut into pieces, and the text of ids
is unescaped: ▁ becomes U+FDD0. U+FDD0 and U+FDD1 are noncharacters: Unicode keeps them for use inside a program.
A text that has them anyway loses nothing, because they are escaped too. No learnt piece has any of the
three, so ▁ in a text is three byte tokens, and a stream never shows a part of it.

The rules are part of the files: the normalizer and the denormalizer of tokenizer.model, and those of tokenizer.json.
Models without the rules (foreign ones, and those trained here earlier) keep their ids and decode ▁ as a space.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctllm_ray.tokenizer.tokenizer import Tokenizer

SPACE = "▁"  # how SentencePiece writes a space
STAND_IN, ESCAPE = "\ufdd0", "\ufdd1"
#: What a text has, and what it is escaped as. Unescaping takes the rules one after another in this order, escaping
#: in the reverse order.
RULES = ((SPACE, STAND_IN), (STAND_IN, ESCAPE + "1"), (ESCAPE, ESCAPE + "0"))
NAME = "ctllm_metaspace"  # of the normalizer in tokenizer.model, by which the conversion knows these rules


def add_rules(model: bytes) -> bytes:
    """A SentencePiece model with the rules; its pieces and their ids stay as they are."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made by protobuf at import
    proto.ParseFromString(model)
    proto.normalizer_spec.name = NAME
    proto.normalizer_spec.precompiled_charsmap = _compile(RULES)
    back = proto.denormalizer_spec
    back.name, back.precompiled_charsmap = NAME, _compile((escaped, plain) for plain, escaped in RULES)
    back.add_dummy_prefix = back.remove_extra_whitespaces = back.escape_whitespaces = False
    return proto.SerializeToString()


def _compile(rules: Iterable[tuple[str, str]]) -> bytes:
    """The rules in SentencePiece's binary form. It reads them from a file only."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.tsv")
        path.write_text("".join(f"{_hex(old)}\t{_hex(new)}\n" for old, new in rules))
        compiled = sentencepiece.SentencePieceNormalizer(rule_tsv=str(path)).serialized_model_proto()
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(compiled)
    return proto.normalizer_spec.precompiled_charsmap


def _hex(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)


def has_rules(proto: Any) -> bool:
    """True if the SentencePiece model has the rules."""
    return proto.normalizer_spec.name == NAME


def unescapes(tokenizer: Tokenizer) -> bool:
    """True if the tokenizer, in either form, decodes by the rules."""
    ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    parts = [ids.get(f"<0x{byte:02X}>", -1) for byte in STAND_IN.encode()]
    return min(parts) >= 0 and tokenizer.decode(parts) == SPACE


def unescape(text: str) -> str:
    """The text that was escaped. `text` must not end inside an escape."""
    for plain, escaped in RULES:
        text = text.replace(escaped, plain)
    return text
