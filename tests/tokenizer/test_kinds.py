"""Text to ids as the tokenizer itself does it, against transformers, over tokenizers as well-known models
ship them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from ctllm_ray.base.errors import InputError
from ctllm_ray.corpus.encoding.encode_documents import frame_documents
from ctllm_ray.tokenizer.tokenizer import SentencePiece, Tokenizer, load_tokenizer
from tests.tokenizer.kinds import KINDS, TEXTS

#: What stands before and behind a document to train on, by kind: pieces, as far as they are no BOS and EOS of
#: ours.
PUT_BEFORE = {
    "llama2": ["<s>"],
    "llama3": ["<|begin_of_text|>"],
    "qwen": [],
    "yi": [],
    "mistral": ["<s>"],
    "glm": ["[gMASK]", "<sop>"],
    "byte_level_without_post_processor": [],
    "gpt2": [],
    "ends_with_eos": [],
    "characters": ["<s>"],
    "llama2_slow": ["<s>"],
    "yi_slow": [],
    "unsaid_slow": [],
}


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, documents: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    texts = [*documents[:200], *TEXTS * 5]
    return KINDS[request.param](tmp_path_factory.mktemp("kinds") / request.param, texts)


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.add_specials(tokenizer.encode([text])[0].tolist())


def test_a_text_has_the_ids_that_transformers_gives_it(kind: Path) -> None:
    ours, theirs = load_tokenizer(str(kind)), transformers.AutoTokenizer.from_pretrained(kind)
    for text in (text for text in TEXTS if text == text.lstrip()):
        assert whole(ours, text) == theirs(text).input_ids
        assert ours.encode([text])[0].tolist() == theirs(text, add_special_tokens=False).input_ids


def test_a_text_that_begins_with_blanks_has_the_ids_of_the_file_itself(kind: Path) -> None:
    """transformers 5 rebuilds tokenizers of the class Llama, and then leaves a ▁ away that the file puts
    there."""
    if not (kind / "tokenizer.json").exists():
        pytest.skip("there is no tokenizer.json to go by")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(kind / "tokenizer.json"))
    for text in TEXTS:
        assert whole(load_tokenizer(str(kind)), text) == theirs(text).input_ids


def test_what_is_put_before_a_text_is_what_its_kind_puts(kind: Path) -> None:
    tokenizer = load_tokenizer(str(kind))
    assert [tokenizer.pieces[id_] for id_ in tokenizer.prefix_ids] == PUT_BEFORE[kind.name]
    assert tokenizer.suffix_ids == ((tokenizer.eos_id,) if kind.name == "ends_with_eos" else ())


def test_a_document_begins_with_what_the_tokenizer_puts_and_never_with_a_bos_that_it_does_not(
    kind: Path,
) -> None:
    tokenizer = load_tokenizer(str(kind))
    content = tokenizer.encode([TEXTS[0]])[0]
    (document,) = frame_documents([content], *tokenizer.document_ids)
    front = [tokenizer.pieces.index(piece) for piece in PUT_BEFORE[kind.name]] or [tokenizer.eos_id]
    assert document.tolist() == [*front, *content, tokenizer.eos_id]
    if tokenizer.bos_id != tokenizer.eos_id and not PUT_BEFORE[kind.name]:
        assert tokenizer.bos_id not in document


def test_a_folder_that_is_saved_again_puts_the_same(kind: Path, tmp_path: Path) -> None:
    before = load_tokenizer(str(kind))
    before.save(str(tmp_path))
    after = load_tokenizer(str(tmp_path))
    assert (after.prefix_ids, after.suffix_ids) == (before.prefix_ids, before.suffix_ids)
    assert whole(after, TEXTS[1]) == whole(before, TEXTS[1])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS[1]).input_ids == whole(before, TEXTS[1])


def test_ours_begins_with_bos(trained: SentencePiece, folder: Path) -> None:
    assert trained.prefix_ids == (trained.bos_id,)
    assert trained.document_ids == ((trained.bos_id,), (trained.eos_id,))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert whole(load_tokenizer(str(folder)), text) == theirs(text).input_ids


def test_a_chat_template_knows_only_the_names_that_the_tokenizer_gives(kind: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(kind)
    named = load_tokenizer(str(kind)).token_names
    assert named.get("bos_token") == theirs.bos_token
    assert named.get("eos_token") == theirs.eos_token


def test_the_older_file_of_names_does_not_count_where_the_configuration_lists_added_tokens(
    tmp_path: Path,
) -> None:
    folder = KINDS["characters"](tmp_path / "listed", TEXTS)
    added = {"0": {"content": "<s>", "special": True}, "1": {"content": "</s>", "special": True}}
    config = {
        "bos_token": None,
        "eos_token": {"__type": "AddedToken", "content": "</s>"},
        "added_tokens_decoder": added,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config)
    )
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (theirs.bos_token, theirs.eos_token) == (None, "</s>")
    assert load_tokenizer(str(folder)).token_names == {"eos_token": "</s>"}


@pytest.mark.parametrize("content", ["[]", '"text"'])
def test_a_configuration_that_is_no_object_is_refused_by_name(tmp_path: Path, content: str) -> None:
    folder = KINDS["characters"](tmp_path / "odd", TEXTS)
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match="not a JSON object"):
        load_tokenizer(str(folder))
