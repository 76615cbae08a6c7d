"""Encodes text to ids and back, with one interface for SentencePiece models and Hugging Face tokenizers.

`encode` gives the ids of the content alone; `add_specials` puts around them what the tokenizer itself puts
there, so that they are those of transformers' `tokenizer(text)`: Llama 2 begins with BOS, Qwen with nothing,
GLM with two specials, and to name a BOS is not to put one (Yi). A text that spells a special (`</s>` stands
in many a web page) stays text: specials come from ids only.

SentencePiece returns numpy arrays, a third faster than lists (28 MB/s against 22 on one core, 8k pieces).
What UTF-8 cannot hold is defined: a lone surrogate becomes U+FFFD. All other text of a tokenizer trained here
comes back as it was, U+2581 and NUL included. One trained before tokenizer/metaspace.py decodes U+2581, which
SentencePiece itself uses for the space, as a space.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import convert


class Tokenizer(ABC):
    """`specials` are all pieces that no text can spell, by name, including `bos_id`, `eos_id` and `pad_id`.

    If a foreign tokenizer has no BOS or no padding, EOS takes its place. `prefix_ids` and
    `suffix_ids` are what the tokenizer itself adds before and after a text. They are empty if it
    names a BOS but does not add it.
    """

    specials: dict[str, int]
    sha256: str  # of the file that defines the ids: equal values mean equal ids
    bos_id: int
    eos_id: int
    pad_id: int
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    token_names: dict[str, str]  # `bos_token` and so on, as chat templates call them; only those that exist

    @abstractmethod
    def _encode(self, texts: list[str]) -> list[np.ndarray]: ...

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files of a Hugging Face tokenizer folder, by name."""

    @cached_property
    @abstractmethod
    def pieces(self) -> list[str]:
        """Every piece by id, as the model writes it; empty for an unused id."""

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary: the largest id plus one."""
        return len(self.pieces)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text (int32, read-only), without BOS and EOS; none for an empty text."""
        try:
            return self._encode(list(texts))
        except (TypeError, UnicodeEncodeError):  # a lone surrogate; anything else fails again
            return self._encode([_mend_surrogates(text) for text in texts])

    def add_specials(self, ids: Sequence[int]) -> list[int]:
        """The ids of a text with the prefix and suffix that the tokenizer itself adds."""
        return [*self.prefix_ids, *ids, *self.suffix_ids]

    @property
    def document_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What frames a training document. The part before is never empty, and the part after ends with EOS.

        Where the tokenizer puts nothing before a text, EOS stands there, as it does between the documents of
        one long stream: the first id of a text needs something to be predicted from.
        """
        ends = self.suffix_ids[-1:] == (self.eos_id,)
        return self.prefix_ids or (self.eos_id,), self.suffix_ids if ends else (*self.suffix_ids, self.eos_id)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids, without specials. Raises `InputError` for an id outside the vocabulary."""
        plain = np.asarray(ids, np.int64).tolist()
        if plain and not 0 <= min(plain) <= max(plain) < self.vocab_size:
            wrong = next(i for i in plain if not 0 <= i < self.vocab_size)
            raise InputError(
                f"id {wrong} is not in the vocabulary of {self.vocab_size} ids",
                remedy="decode with the tokenizer that encoded the ids",
            )
        return self._decode(plain)

    def special_id(self, name: str) -> int:
        """The id of a special. Raises `InputError` that lists the specials if there is none of this name."""
        if name not in self.specials:
            names = ", ".join([*self.specials][:20])
            raise InputError(
                f"the tokenizer has no special token {name!r}",
                where=names,
                remedy="use one of the tokenizer's special tokens",
            )
        return self.specials[name]

    def save(self, folder: str) -> None:
        """Writes the files that transformers, vLLM and llama.cpp read; always the same bytes."""
        for name, content in self.files().items():
            storage.write_bytes(storage.join(folder, name), content)


class SentencePiece(Tokenizer):
    """A SentencePiece model; `files` converts it. It adds BOS, if it has one, before a text."""

    def __init__(self, model: bytes, adds_bos: bool = True, adds_eos: bool = False) -> None:
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor()
            self._processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise InputError(
                f"the file is not a SentencePiece model: {error}",
                remedy="restore the file, or give another tokenizer",
            ) from None
        self._model = model
        self.sha256 = hashlib.sha256(model).hexdigest()
        size = self._processor.vocab_size()
        fixed = [i for i in range(size) if self._processor.is_control(i) or self._processor.is_unknown(i)]
        self.specials = {self._processor.id_to_piece(i): i for i in fixed}
        self.eos_id = _require_id(self._processor.eos_id(), "the model has no EOS")
        self.bos_id, self.pad_id = (
            i if i >= 0 else self.eos_id for i in (self._processor.bos_id(), self._processor.pad_id())
        )
        ids = {"bos_token": self._processor.bos_id(), "eos_token": self._processor.eos_id()}
        self.token_names = {name: self._processor.id_to_piece(i) for name, i in ids.items() if i >= 0}
        self.prefix_ids = (self.bos_id,) if adds_bos and self._processor.bos_id() >= 0 else ()
        self.suffix_ids = (self.eos_id,) if adds_eos else ()

    def __reduce__(self) -> tuple:
        return SentencePiece, (self._model, bool(self.prefix_ids), bool(self.suffix_ids))

    @cached_property
    def pieces(self) -> list[str]:
        """Every piece by id; a space is written ▁, a byte <0x0A>."""
        return [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]

    def files(self) -> dict[str, bytes]:
        """tokenizer.model, and the Hugging Face files with equal ids."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return convert.files(self._model, self.sha256, bool(self.prefix_ids), bool(self.suffix_ids))

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        return self._processor.encode(texts, num_threads=1, return_type="numpy")

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)


class HuggingFace(Tokenizer):
    """A fast tokenizer; `files` are the files of the folder it came from."""

    def __init__(self, files: dict[str, bytes]) -> None:
        import tokenizers

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Ray gives a worker one core
        self._files = files
        content = files[convert.TOKENIZER]
        try:
            self._fast = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the Rust side raises nothing more specific
            raise InputError(
                f"tokenizer.json cannot be loaded: {error}",
                remedy="restore the file, or give another tokenizer",
            ) from None
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # text that spells a special stays text
        self.sha256 = hashlib.sha256(content).hexdigest()
        added = self._fast.get_added_tokens_decoder()
        self.specials = {token.content: i for i, token in added.items() if token.special}
        self.token_names = named = _special_names(files)
        self.eos_id = _require_id(self._id(named.get("eos_token")), "its configuration names no eos_token")
        self.bos_id, self.pad_id = (
            i if i >= 0 else self.eos_id
            for i in map(self._id, (named.get("bos_token"), named.get("pad_token")))
        )
        self.prefix_ids, self.suffix_ids = self._added_ids()

    def _added_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the post-processor adds before and after a
        text, taken from the first text that has ids at all."""
        bare: list[int] = []
        for probe in ("a", *self.pieces):  # a vocabulary of Chinese characters only may lack "a"
            bare = self._fast.encode(probe, add_special_tokens=False).ids
            if bare:
                break
        whole = self._fast.encode(probe).ids
        for at in range(len(whole)):
            if bare and whole[at : at + len(bare)] == bare:
                return tuple(whole[:at]), tuple(whole[at + len(bare) :])
        remedy = "check the vocabulary and the post_processor in tokenizer.json"
        raise InputError("the tokenizer encodes no text to any id", where=convert.TOKENIZER, remedy=remedy)

    def __reduce__(self) -> tuple:
        return HuggingFace, (self._files,)

    def _id(self, name: str | None) -> int:
        result = self._fast.token_to_id(name) if name else None
        return -1 if result is None else result

    @cached_property
    def pieces(self) -> list[str]:
        """Every piece by id, in the tokenizer's own spelling."""
        by_id = {i: piece for piece, i in self._fast.get_vocab(with_added_tokens=True).items()}
        return [by_id.get(i, "") for i in range(max(by_id) + 1)]

    def files(self) -> dict[str, bytes]:
        """The original files."""
        return self._files

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        result = self._fast.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in result]

    def _decode(self, ids: list[int]) -> str:
        return self._fast.decode(ids, skip_special_tokens=True)


#: The tokenizer files of a Hugging Face folder. The model's own files are left alone.
_FILES = (
    convert.MODEL,
    convert.TOKENIZER,
    convert.CONFIG,
    convert.MAP,
    convert.TEMPLATE,
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)


def load_tokenizer(path: str) -> Tokenizer:
    """Loads the tokenizer from a SentencePiece file, a folder
    written by `save`, or a Hugging Face folder, local or remote.

    A foreign folder counts by its tokenizer.json, which is what serves the model, then by its
    tokenizer.model; one that has neither is converted by transformers. Raises `InputError` if there is
    none of these.
    """
    try:
        return _load_folder(path)
    except InputError as error:
        raise InputError(error.what, where=error.where or path, remedy=error.remedy) from None


def _load_folder(path: str) -> Tokenizer:
    if path.endswith(".model"):
        return SentencePiece(storage.read_bytes(path))
    names = set(storage.list_names(path))
    files = {name: storage.read_bytes(storage.join(path, name)) for name in _FILES if name in names}
    model = files.get(convert.MODEL, b"")
    if model and (convert.TOKENIZER not in files or _same(files, model)):
        config = _plain(files, convert.CONFIG)
        # A SentencePiece model alone does not say whether BOS is added; its default is yes. With a
        # configuration, transformers follows that.
        return SentencePiece(
            model, config.get("add_bos_token", not config), config.get("add_eos_token", False)
        )
    if convert.TOKENIZER not in files:
        files |= _convert_slow(path, files)
    return HuggingFace(files)


def _same(files: dict[str, bytes], model: bytes) -> bool:
    """True if `save` wrote tokenizer.json from this model."""
    return _plain(files, convert.CONFIG).get(convert.SAME_AS) == hashlib.sha256(model).hexdigest()


def _convert_slow(path: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Converts the slow tokenizer of a folder to tokenizer.json."""
    if not files.keys() - {convert.CONFIG, convert.MAP, convert.TEMPLATE}:
        raise InputError(
            "the folder has no tokenizer: neither tokenizer.model nor tokenizer.json",
            where=path,
            remedy="give a SentencePiece file (.model) or a folder with a tokenizer",
        )
    import tempfile
    from pathlib import Path

    import transformers

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            slow = transformers.AutoTokenizer.from_pretrained(folder)
            return {convert.TOKENIZER: slow.backend_tokenizer.to_str().encode()}
        except (OSError, ValueError, AttributeError, KeyError) as error:
            remedy = "save the tokenizer with transformers as a fast tokenizer first"
            raise InputError(
                f"transformers cannot convert the tokenizer to a fast one: {error}", where=path, remedy=remedy
            ) from None


def _plain(files: dict[str, bytes], name: str) -> dict[str, Any]:
    try:
        plain = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise InputError(
            f"the file is not valid JSON: {error}", where=name, remedy="restore the file"
        ) from None
    if not isinstance(plain, dict):
        raise InputError("the file is not a JSON object", where=name, remedy="restore the file")
    return plain


def _special_names(files: dict[str, bytes]) -> dict[str, str]:
    """The names of bos_token and so on, read as transformers reads them.

    special_tokens_map.json is the older file: it counts where
    the configuration does not list added tokens itself.
    """
    config = _plain(files, convert.CONFIG)
    plain = config if "added_tokens_decoder" in config else config | _plain(files, convert.MAP)
    values = {key: value.get("content") if isinstance(value, dict) else value for key, value in plain.items()}
    return {
        key: value
        for key, value in values.items()
        if key.endswith("_token") and value and isinstance(value, str)
    }


def _require_id(i: int, otherwise: str) -> int:
    if i < 0:
        raise InputError(
            f"the end of a document cannot be marked: {otherwise}",
            where="tokenizer",
            remedy="use a tokenizer that has an EOS token",
        )
    return i


def _mend_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
