"""Chat models are asked through their own template; base models complete, and never see role tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from ctllm_ray.base.errors import InputError
from ctllm_ray.evaluate import terminal
from ctllm_ray.evaluate.formats.chat_form import choose_form
from ctllm_ray.tokenizer import chat_template
from ctllm_ray.tokenizer import tokenizer as tokenizers
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.evaluate.judges import judging
from tests.evaluate.test_judge import MARK, cases, evaluated, judged

OTHERS = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
QUERY = "杭州的西湖在哪里？"


def copy_of(folder: Path, tmp_path: Path, **files: Any) -> str:
    """The model with other files beside it; None: without."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name, content in files.items():
        path = copy / {"template": "chat_template.jinja", "lineage": "lineage.json"}.get(name, name)
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(copy)


def configured(folder: Path, template: Any) -> dict[str, Any]:
    """The tokenizer's configuration with this chat template; None: without."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    return config | ({"chat_template": template} if template is not None else {})


def taught(objective: str) -> dict[str, Any]:
    return {"recipe": {"train": {"objective": {"use": objective}}}}


def test_our_model_that_was_taught_turns_is_asked_by_our_rule(
    folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    form = choose_form(copy_of(folder, tmp_path, lineage=taught("sft")), tokenizer)
    turns = [{"role": "user", "content": QUERY}]
    assert (form.name, form.until) == ("chat", ())
    assert form.write_prompt(QUERY) == chat_template.encode_prompt(tokenizer, turns).tolist()


def test_our_base_model_completes_and_sees_no_role_token(
    folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    form = choose_form(copy_of(folder, tmp_path, lineage=taught("pretrain")), tokenizer)
    ids = form.write_prompt(f"{QUERY}<|user|>")
    assert (form.name, form.until) == ("completion", ("\n问题：",))
    assert not {tokenizer.specials[role] for role in chat_template.ROLES.values()} & set(ids)
    assert ids == [tokenizer.bos_id, *tokenizer.encode([f"问题：{QUERY}<|user|>\n回答："])[0].tolist()]


@pytest.mark.parametrize("where", ["file", "config", "list"])
def test_a_template_of_its_own_renders_as_transformers_does(where: str, folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "file": {"template": OTHERS},
        "config": {"template": None, "tokenizer_config.json": configured(folder, OTHERS)},
        "list": {
            "template": None,
            "tokenizer_config.json": configured(
                folder, [{"name": "rag", "template": "x"}, {"name": "default", "template": OTHERS}]
            ),
        },
    }[where]
    copy = copy_of(folder, tmp_path, **given)
    form = choose_form(copy, tokenizers.load_tokenizer(copy))
    theirs = transformers.AutoTokenizer.from_pretrained(copy)
    wanted = theirs.apply_chat_template(
        [{"role": "user", "content": QUERY}],
        chat_template=OTHERS,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert form.name == "chat"
    assert form.write_prompt(QUERY) == wanted


def test_a_question_that_spells_a_special_ends_no_turn_in_a_template_of_its_own(
    folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    form = choose_form(copy_of(folder, tmp_path, template=OTHERS), tokenizer)
    plain, spelled = form.write_prompt("问"), form.write_prompt("问<|end|><s>")
    specials = set(tokenizer.specials.values())
    assert [id_ for id_ in spelled if id_ in specials] == [id_ for id_ in plain if id_ in specials]
    assert "[user]\n问<|end|><s>\n[assistant]\n" in tokenizer.decode(spelled)


def test_a_model_without_a_template_completes(folder: Path, tmp_path: Path, tokenizer: SentencePiece) -> None:
    copy = copy_of(folder, tmp_path, template=None, **{"tokenizer_config.json": configured(folder, None)})
    assert choose_form(copy, tokenizer).name == "completion"
    with pytest.raises(InputError, match="no chat template"):
        choose_form(copy, tokenizer, "chat")


def test_the_recipe_may_say_the_form(folder: Path, tmp_path: Path, tokenizer: SentencePiece) -> None:
    copy = copy_of(folder, tmp_path, lineage=taught("pretrain"))
    assert choose_form(copy, tokenizer, "chat").name == "chat"
    assert choose_form(str(folder), tokenizer, "completion").name == "completion"


def test_a_template_that_fails_is_an_error_with_a_remedy(
    folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    form = choose_form(copy_of(folder, tmp_path, template="{{ raise_exception('no') }}"), tokenizer)
    with pytest.raises(InputError, match="chat template rejects this conversation: no"):
        form.write_prompt(QUERY)


@pytest.mark.parametrize(("objective", "form"), [("sft", "chat"), ("pretrain", "completion")])
def test_results_of_a_judged_benchmark_say_in_which_form_the_model_was_asked(
    objective: str, form: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(copy_of(folder, tmp_path, lineage=taught(objective)))
    with judging(MARK) as there:
        recipe = judged(copy, tmp_path, there.url, cases(1))
        results, _ = evaluated(recipe)
    assert results["decisions"]["judge"]["form"] == form
    said = {"chat": "prompts use the chat template", "completion": "prompts are plain text"}[form]
    assert said in next(terminal.format_scores(results))
    page = (Path(recipe.folder("evaluate")) / "report.html").read_text("utf-8")
    assert said in page
