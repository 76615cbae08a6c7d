"""Tokenizer folders as well-known models ship them, over a small vocabulary that is trained here."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

TEXTS = ("春天到了，花开得很好。", "The quick brown fox, 12 of 40.", "  两格开头\n换行 tab\t完")
VOCAB = 700


def _write(folder: Path, fast: tokenizers.Tokenizer | None, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if fast is not None:
        fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False))
    return folder


QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # noqa: E501


def _byte_level(texts: Sequence[str], specials: Sequence[str], words: str = "") -> tokenizers.Tokenizer:
    """As GPT-2, Qwen, Llama 3 and GLM-4 have it; `words`: another pattern than GPT-2's for where texts are
    cut."""
    fast = tokenizers.Tokenizer(models.BPE())
    split = [pre_tokenizers.Split(tokenizers.Regex(words), "isolated")] if words else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Sequence([*split, last]), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        texts, BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, show_progress=False)
    )
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return fast


def _spaced(
    texts: Sequence[str], specials: Sequence[str], *, dummy_prefix: bool = True
) -> tokenizers.Tokenizer:
    """As Llama 2, Mistral and Yi have it: a SentencePiece BPE with bytes, converted."""
    fast = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("▁")] if dummy_prefix else []
    fast.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if dummy_prefix else []
    fast.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    first = [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    fast.train_from_iterator(texts, BpeTrainer(vocab_size=VOCAB, special_tokens=first, show_progress=False))
    plain = json.loads(fast.to_str())
    plain["added_tokens"] = [
        token for token in plain["added_tokens"] if not token["content"].startswith("<0x")
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(plain))


def _before(fast: tokenizers.Tokenizer, *names: str, byte_level: bool = False) -> tokenizers.Tokenizer:
    """With a post-processor that puts these before a text."""
    template = processors.TemplateProcessing(
        single=[*names, "$A"],
        pair=[*names, "$A", *names, "$B"],
        special_tokens=[(name, fast.token_to_id(name)) for name in names],
    )
    fast.post_processor = (
        processors.Sequence([processors.ByteLevel(trim_offsets=False), template]) if byte_level else template
    )
    return fast


def llama2(folder: Path, texts: Sequence[str]) -> Path:
    fast = _before(_spaced(texts, ("<unk>", "<s>", "</s>")), "<s>")
    named = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "legacy": False,
    }
    return _write(folder, fast, {"tokenizer_class": "LlamaTokenizer", **named})


def llama3(folder: Path, texts: Sequence[str]) -> Path:
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
    fast = _before(_byte_level(texts, names), "<|begin_of_text|>", byte_level=True)
    named = {"bos_token": names[0], "eos_token": names[2]}
    return _write(folder, fast, {"tokenizer_class": "PreTrainedTokenizerFast", **named})


def qwen(folder: Path, texts: Sequence[str]) -> Path:
    fast = _byte_level(texts, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), QWEN_WORDS)
    fast.normalizer = normalizers.NFC()
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    named = {
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
    }
    return _write(folder, fast, {"tokenizer_class": "Qwen2Tokenizer", **named})


def yi(folder: Path, texts: Sequence[str]) -> Path:
    """Names a BOS and puts none."""
    fast = _spaced(texts, ("<unk>", "<|startoftext|>", "<|endoftext|>"), dummy_prefix=False)
    named = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}
    return _write(
        folder, fast, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, **named}
    )


def mistral(folder: Path, texts: Sequence[str]) -> Path:
    fast = _before(_spaced(texts, ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")), "<s>")
    named = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "legacy": False,
    }
    return _write(folder, fast, {"tokenizer_class": "LlamaTokenizerFast", **named})


def glm(folder: Path, texts: Sequence[str]) -> Path:
    """Puts two specials before a text, neither of which is called BOS."""
    names = ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>")
    fast = _before(_byte_level(texts, names), "[gMASK]", "<sop>", byte_level=True)
    named = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return _write(folder, fast, {"tokenizer_class": "PreTrainedTokenizerFast", **named})


def byte_level_without_post_processor(folder: Path, texts: Sequence[str]) -> Path:
    """Names a BOS; nothing puts it."""
    fast = _byte_level(texts, ("<s>", "</s>"))
    return _write(
        folder, fast, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    )


def gpt2(folder: Path, texts: Sequence[str]) -> Path:
    """One special is BOS and EOS; none is put."""
    fast = _byte_level(texts, ("<|endoftext|>",))
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    return _write(folder, fast, {"tokenizer_class": "GPT2Tokenizer", **named})


def ends_with_eos(folder: Path, texts: Sequence[str]) -> Path:
    """Puts one special behind a text."""
    fast = _byte_level(texts, ("<s>", "</s>"))
    eos = [("</s>", fast.token_to_id("</s>"))]
    fast.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=eos
    )
    return _write(
        folder, fast, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    )


def characters(folder: Path, texts: Sequence[str]) -> Path:
    """Chinese characters alone, so that many a text has no ids; the older of two files names the specials."""
    names = ("<s>", "</s>")
    vocabulary = dict.fromkeys((*names, *sorted(char for char in {*"".join(texts)} if "一" <= char <= "龥")))
    fast = tokenizers.Tokenizer(models.BPE({piece: id_ for id_, piece in enumerate(vocabulary)}, []))
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "extra": {"special": True}}
    found = _write(folder, _before(fast, "<s>"), config)
    named = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}
    (found / "special_tokens_map.json").write_text(json.dumps(named))
    return found


def _sentencepiece(folder: Path, texts: Sequence[str], config: dict[str, Any]) -> Path:
    """A folder without a tokenizer.json, as older models came."""
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines() if line),
        model_writer=sink,
        model_type="bpe",
        vocab_size=VOCAB,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    _write(folder, None, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config})
    (folder / "tokenizer.model").write_bytes(sink.getvalue())
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    return folder


def llama2_slow(folder: Path, texts: Sequence[str]) -> Path:
    return _sentencepiece(folder, texts, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True})


def yi_slow(folder: Path, texts: Sequence[str]) -> Path:
    return _sentencepiece(folder, texts, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False})


def unsaid_slow(folder: Path, texts: Sequence[str]) -> Path:
    """Says nothing of BOS."""
    return _sentencepiece(folder, texts, {"tokenizer_class": "LlamaTokenizer"})


KINDS: dict[str, Callable[[Path, Sequence[str]], Path]] = {
    make.__name__: make
    for make in (
        llama2, llama3, qwen, yi, mistral, glm, byte_level_without_post_processor, gpt2, ends_with_eos,
        characters,
        llama2_slow, yi_slow, unsaid_slow,
    )
}  # fmt: skip
