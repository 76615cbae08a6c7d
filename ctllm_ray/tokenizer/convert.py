"""Converts a SentencePiece BPE model to a Hugging Face tokenizer.json with equal ids.

SentencePiece joins, again and again, the neighbours whose union has the best score, the leftmost of equals; a
tokenizer.json holds a ranked list of pairs instead. So every way to cut a piece into two pieces becomes a
pair, ranked by the piece's score. In which order the cuts of one piece stand does not matter: no text was
found where it does, in 80,000 over 4,000 random small vocabularies.

Only learnt pieces take part: a text cannot spell a control
symbol or a byte's name. Cost: 1 s for 125,696 pieces.
"""

from __future__ import annotations

import json
from typing import Any

from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import chat_template, metaspace, specials
from ctllm_ray.tokenizer.metaspace import SPACE

TOKENIZER, CONFIG, MAP, TEMPLATE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    chat_template.FILE,
)
MODEL = "tokenizer.model"
#: Key in tokenizer_config.json: SHA-256 of the model whose ids tokenizer.json has.
SAME_AS = "sentencepiece_sha256"


def files(model: bytes, sha256: str, adds_bos: bool, adds_eos: bool) -> dict[str, bytes]:
    """The files of a Hugging Face tokenizer folder by name. Raises `InputError` if the model is not BPE."""
    proto = _parse_model(model)
    names = _names(proto)
    config = _config(names) | {"add_bos_token": adds_bos, "add_eos_token": adds_eos, SAME_AS: sha256}
    results = {
        MODEL: model,
        TOKENIZER: fast(proto, adds_bos, adds_eos).encode(),
        CONFIG: _json(config),
        MAP: _json(names),
    }
    if {specials.USER, specials.ASSISTANT, specials.END} <= {piece.piece for piece in proto.pieces}:
        results[CONFIG] = _json(config | {"chat_template": chat_template.TEMPLATE})
        results[TEMPLATE] = chat_template.TEMPLATE.encode()
    return results


def fast(proto: Any, adds_bos: bool, adds_eos: bool) -> str:
    """The content of tokenizer.json."""
    import tokenizers
    from tokenizers import AddedToken, models, processors

    kinds = proto.SentencePiece.Type
    unk = next(piece.piece for piece in proto.pieces if piece.type == kinds.UNKNOWN)
    built = tokenizers.Tokenizer(
        models.BPE(
            vocab={_name(piece, kinds): i for i, piece in enumerate(proto.pieces)},
            merges=_merges(proto),
            unk_token=unk,
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )
    built.normalizer = _normalizer(proto)
    built.decoder = _decoder(proto)
    control = [piece.piece for piece in proto.pieces if piece.type in (kinds.CONTROL, kinds.UNKNOWN)]
    built.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in control])
    own = [_name(piece, kinds) for piece in proto.pieces if piece.type == kinds.USER_DEFINED]
    built.add_tokens([AddedToken(name, normalized=False) for name in own])
    if adds_bos or adds_eos:
        before, behind = [proto.trainer_spec.bos_piece] * adds_bos, [proto.trainer_spec.eos_piece] * adds_eos
        built.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *behind],
            pair=[*before, "$A", *behind, *before, "$B", *behind],
            special_tokens=[(name, built.token_to_id(name)) for name in (*before, *behind)],
        )
    return built.to_str(pretty=False)


def _name(piece: Any, kinds: Any) -> str:
    """The spelling of a piece in tokenizer.json; a piece that is matched first in the text
    is spelled as in the text."""
    return piece.piece.replace(SPACE, " ") if piece.type == kinds.USER_DEFINED else piece.piece


def _parse_model(model: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made by protobuf at import
    try:
        proto.ParseFromString(model)
    except DecodeError as error:
        raise InputError(
            f"the file is not a SentencePiece model: {error}", remedy="give the path of a SentencePiece model"
        ) from None
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise InputError(
            "the SentencePiece model is not of type BPE; only BPE models can be converted to tokenizer.json",
            where="tokenizer.path",
            remedy="give the Hugging Face folder of that tokenizer instead",
        )
    return proto


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Pairs of pieces, best first."""
    kinds = proto.SentencePiece.Type
    learnt = {piece.piece: piece.score for piece in proto.pieces if piece.type == kinds.NORMAL}
    ranked = sorted(learnt, key=lambda piece: -learnt[piece])
    return [(p[:k], p[k:]) for p in ranked for k in range(1, len(p)) if p[:k] in learnt and p[k:] in learnt]


def _normalizer(proto: Any) -> Any:
    from tokenizers import Regex, normalizers

    spec, steps = proto.normalizer_spec, list[Any]()
    if metaspace.has_rules(proto):
        # Precompiled would drop a combining mark that stands behind ▁: it goes by graphemes.
        steps += [normalizers.Replace(plain, escaped) for plain, escaped in reversed(metaspace.RULES)]
    elif spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _decoder(proto: Any) -> Any:
    from tokenizers import decoders

    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metaspace.has_rules(proto):
        steps += [decoders.Replace(escaped, plain) for plain, escaped in metaspace.RULES]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _names(proto: Any) -> dict[str, str]:
    """The model's special pieces by the names of transformers: bos_token and so on."""
    spec = proto.trainer_spec
    return {
        f"{name}_token": getattr(spec, f"{name}_piece")
        for name in ("bos", "eos", "unk", "pad")
        if getattr(spec, f"{name}_id") >= 0
    }


def _config(names: dict[str, str]) -> dict[str, Any]:
    """tokenizer_config.json: names a class that reads tokenizer.json unchanged, in transformers 4 and 5."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "add_prefix_space": False,  # read by llama.cpp's converter
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # Llama takes no token_type_ids
        "model_max_length": int(1e30),  # the model's config knows
    }


def _json(plain: dict[str, Any]) -> bytes:
    return (json.dumps(plain, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
