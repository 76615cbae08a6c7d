"""Text to ids and back is the same text, whatever the tokenizer was trained on and whichever file it is read
from."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, models
from tokenizers.decoders import DecodeStream

from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import convert, metaspace, round_trip
from ctllm_ray.tokenizer.round_trip import HARD_STRINGS
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece
from ctllm_ray.tokenizer.train import train
from tests.tokenizer.hard_texts import HARD

WORDS = (
    "热闹",
    "忙着",
    "石桥",
    "祠堂",
    "河边",
    "灯笼",
    "下棋",
    "故事",
    "声音",
    "秋天",
    "孩子",
    "回家",
    "村里",
    "清早",
)
RARE = "".join(chr(0x4E00 + 7 * i) for i in range(300))  # each once: they are left without a piece
JOINS = {
    "no_blanks": "是了有在",
    "rare_blanks": "是了有在",
    "blanks_at_the_ends_of_lines": ("是", "了 \n ", "\n   "),
    "metaspaces": ("▁", "▁▁", "是▁", "了"),
    "metaspaces_and_blanks": ("▁ ", " ▁", " ", "▁"),
    "stand_ins": ("\ufdd0", "\ufdd11", "\ufdd10", "1\ufdd0"),
    "tabs_and_nul": ("\t", "\x00", "\t\t", "\r\n"),
}


def corpus(kind: str) -> list[str]:
    draw = random.Random(kind)
    texts = ["".join(w + draw.choice(JOINS[kind]) for w in draw.choices(WORDS, k=60)) for _ in range(200)]
    return [*texts, RARE, "你好 世界" if kind == "rare_blanks" else "你好"]


@pytest.fixture(scope="module", params=JOINS)
def tokenizer(request: pytest.FixtureRequest) -> SentencePiece:
    return SentencePiece(train(corpus(request.param), 700))


def readers(tokenizer: SentencePiece) -> dict[str, Callable[[str], str]]:
    """There and back by our classes, and by the libraries that other programs read the files with."""
    files = tokenizer.files()
    ours = HuggingFace(files)
    bare = sentencepiece.SentencePieceProcessor(model_proto=files[convert.MODEL])
    fast = tokenizers.Tokenizer.from_str(files[convert.TOKENIZER].decode())
    fast.encode_special_tokens = True
    return {
        "SentencePiece": lambda text: tokenizer.decode(tokenizer.encode([text])[0]),
        "HuggingFace": lambda text: ours.decode(ours.encode([text])[0]),
        "sentencepiece": lambda text: bare.decode(bare.encode(text)),
        "tokenizers": lambda text: fast.decode(fast.encode(text, add_special_tokens=False).ids),
    }


def troubled(count: int) -> list[str]:
    draw = random.Random(2)
    alphabet = "▁▁  \ufdd0\ufdd1\ufdd2101a好\u0301\u200d👩\t\n\r\x00"
    return ["".join(draw.choices(alphabet, k=draw.randrange(1, 14))) for _ in range(count)]


def test_the_space_has_its_piece_whatever_the_corpus(tokenizer: SentencePiece) -> None:
    assert "▁" in tokenizer.pieces
    assert [tokenizer.pieces[i] for i in tokenizer.encode([" "])[0]] == ["▁"]
    assert tokenizer.vocab_size == 700


def test_hard_texts_come_back_from_both_files(tokenizer: SentencePiece) -> None:
    texts = [*HARD, *HARD_STRINGS, "".join(HARD_STRINGS), *troubled(500)]
    for name, there_and_back in readers(tokenizer).items():
        assert [text for text in texts if there_and_back(text) != text] == [], name


def test_both_files_give_equal_ids(tokenizer: SentencePiece) -> None:
    texts = [*HARD, *HARD_STRINGS, "".join(HARD_STRINGS), *troubled(2000)]
    other = HuggingFace(tokenizer.files()).encode(texts)
    pairs = zip(texts, tokenizer.encode(texts), other, strict=True)
    assert [text for text, a, b in pairs if a.tolist() != b.tolist()] == []


def test_a_metaspace_in_a_text_has_other_ids_than_a_blank(tokenizer: SentencePiece) -> None:
    metaspace_ids, blank = (set(ids.tolist()) for ids in tokenizer.encode(["▁", " "]))
    assert not metaspace_ids & blank
    learnt = "".join(piece for piece in tokenizer.pieces[320:])
    assert metaspace.STAND_IN not in learnt
    assert metaspace.ESCAPE not in learnt


def test_a_piece_at_a_time_other_programs_show_whole_metaspaces(tokenizer: SentencePiece) -> None:
    """vLLM decodes like this; a text that changes after it was shown would be an error there."""
    text = "你好▁世界▁▁ ▁x"
    fast = tokenizers.Tokenizer.from_str(tokenizer.files()[convert.TOKENIZER].decode())
    stream = DecodeStream(skip_special_tokens=True)
    parts = [stream.step(fast, int(i)) for i in tokenizer.encode([text])[0]]
    assert "".join(part or "" for part in parts) == text


def test_pieces_and_ids_are_those_that_training_gave_before_the_rules(
    trained: SentencePiece, documents: list[str]
) -> None:
    earlier = without_rules(trained)
    assert earlier.pieces == trained.pieces
    for before, now in zip(earlier.encode(documents), trained.encode(documents), strict=True):
        assert before.tolist() == now.tolist()


def without_rules(tokenizer: SentencePiece) -> SentencePiece:
    """The model as it was trained before it kept U+2581 apart."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(tokenizer.files()[convert.MODEL])
    model.normalizer_spec.name, model.normalizer_spec.precompiled_charsmap = "identity", b""
    model.ClearField("denormalizer_spec")
    return SentencePiece(model.SerializeToString())


def test_a_model_trained_before_the_rules_keeps_its_ids_and_its_files(trained: SentencePiece) -> None:
    earlier = without_rules(trained)
    assert [earlier.pieces[i] for i in earlier.encode(["a▁ b"])[0]][1:-1] in (["▁▁"], ["▁", "▁"])
    assert earlier.decode(earlier.encode(["a▁b \ufdd0"])[0]) == "a b \ufdd0"
    fast = tokenizers.Tokenizer.from_str(earlier.files()[convert.TOKENIZER].decode())
    assert repr(fast.normalizer) == 'Sequence(normalizers=[Replace(pattern=String(" "), content="▁")])'
    assert fast.decode(fast.encode("a▁b \ufdd0").ids) == "a b \ufdd0"
    assert not metaspace.unescapes(earlier)
    assert metaspace.unescapes(trained)
    assert metaspace.unescapes(HuggingFace(trained.files()))


@pytest.mark.parametrize(
    "text", ["", "▁", "\ufdd0", "\ufdd1", "\ufdd1\ufdd0▁", "▁1▁0", "\ufdd01\ufdd10", "a b"]
)
def test_unescaping_undoes_escaping(text: str) -> None:
    escaped = text
    for plain, other in reversed(metaspace.RULES):
        escaped = escaped.replace(plain, other)
    assert "▁" not in escaped
    assert metaspace.unescape(escaped) == text


def changes(tokenizer: SentencePiece, texts: list[str]) -> list[round_trip.Change]:
    return round_trip.find_changes(round_trip.forms(tokenizer), texts, tokenizer.encode(texts))


def test_a_text_that_does_not_come_back_is_shown_around_its_first_difference(trained: SentencePiece) -> None:
    text = "春" * 200 + "▁世界" + "天" * 200
    (change,) = changes(without_rules(trained), ["春天", text, "天"])
    assert (change.index, change.form) == (1, "tokenizer.model")
    assert "▁世界天" in str(change)
    assert "comes back as" in str(change)
    assert "character 200 of 403" in str(change)
    assert len(str(change)) < 150


def test_a_loss_of_tokenizer_json_alone_is_noticed(trained: SentencePiece) -> None:
    forms = round_trip.forms(trained) | {convert.TOKENIZER: HuggingFace(without_rules(trained).files())}
    (change,) = round_trip.find_changes(forms, ["a▁b"], trained.encode(["a▁b"]))
    assert change.form == "tokenizer.json"


def test_a_text_that_lost_its_end_is_a_change() -> None:
    change = round_trip.Change(0, "tokenizer.model", "天 ", "天")
    assert "'天 ' comes back as '天' (character 1 of 2" in str(change)


def test_a_trained_tokenizer_that_loses_a_text_is_an_error_that_names_it(trained: SentencePiece) -> None:
    earlier = without_rules(trained)
    forms = round_trip.forms(earlier)
    with pytest.raises(InputError, match="'▁' comes back as ' '"):
        round_trip.check_trained(forms, [], changes(earlier, [*HARD_STRINGS]), [])
    with pytest.raises(InputError, match="'天▁' comes back as '天 '") as caught:
        round_trip.check_trained(forms, changes(earlier, ["天", "天▁"]), [], ["web/1", "web/2"])
    assert caught.value.where == "document web/2"


def test_a_tokenizer_that_loses_nothing_passes_and_has_nothing_to_describe(trained: SentencePiece) -> None:
    found = round_trip.find_hard_changes(round_trip.forms(trained))
    assert found == changes(trained, [*HARD_STRINGS]) == []
    round_trip.check_trained(round_trip.forms(trained), found, found, [])
    assert round_trip.describe_changes(found, found, 3) == []


def test_a_hard_string_that_an_existing_tokenizer_has_no_ids_for_is_a_change_and_no_crash() -> None:
    fast = tokenizers.Tokenizer(models.WordLevel({"</s>": 0, " ": 1, "a": 2}))  # and no unknown piece
    fast.add_special_tokens([AddedToken("</s>")])
    config = b'{"eos_token": "</s>"}'
    closed = HuggingFace({convert.TOKENIZER: fast.to_str().encode(), convert.CONFIG: config})
    found = round_trip.find_hard_changes(round_trip.forms(closed))
    assert [change.index for change in found] == [i for i, text in enumerate(HARD_STRINGS) if text != " "]
    assert str(found[0]).startswith("'你好 世界' cannot be encoded: WordLevel error")
    assert "20 of 21 hard strings: '你好 世界' cannot" in round_trip.describe_changes([], found, 3)[0]
