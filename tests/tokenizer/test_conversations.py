"""Where a model's chat template comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ctllm_ray.tokenizer import chat_template
from ctllm_ray.tokenizer.conversations import ConversationEncoder, read_template
from ctllm_ray.tokenizer.tokenizer import load_tokenizer

OTHER = "{% for turn in messages %}[{{ turn['role'] }}]{{ turn['content'] }}{% endfor %}"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_template_of_our_own_folder_is_read_from_it(copy: Path) -> None:
    assert read_template(str(copy)) == chat_template.TEMPLATE


def test_a_template_that_was_put_there_counts_although_the_tokenizer_is_ours(copy: Path) -> None:
    (copy / chat_template.FILE).write_text(OTHER, encoding="utf-8")
    tokenizer = load_tokenizer(str(copy))
    ids = ConversationEncoder(tokenizer, read_template(str(copy))).encode_prompt(
        [{"role": "user", "content": "春天"}]
    )
    assert tokenizer.decode(ids) == "[user]春天"


def test_of_several_templates_in_the_configuration_the_default_counts(copy: Path) -> None:
    (copy / chat_template.FILE).unlink()
    config = json.loads((copy / "tokenizer_config.json").read_text())
    several = [{"name": "rag", "template": "x"}, {"name": "default", "template": OTHER}]
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": several}))
    assert read_template(str(copy)) == OTHER
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": several[:1]}))
    assert read_template(str(copy)) == ""


def test_a_folder_without_a_template_has_none(copy: Path) -> None:
    (copy / chat_template.FILE).unlink()
    (copy / "tokenizer_config.json").unlink()
    assert read_template(str(copy)) == ""
