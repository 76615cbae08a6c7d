"""docs/ stay true: the reference knows every name, and the examples of the design page run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ctllm_ray import cli
from ctllm_ray.base import (
    errors,
    recipe,
    recipe_evaluation,
    recipe_serving,
    recipe_sweep,
    recipe_training,
    resolve,
)
from ctllm_ray.model import config
from ctllm_ray.text.lines import line_rules
from ctllm_ray.tokenizer import specials
from ctllm_ray.train.checkpoint import run_state
from ctllm_ray.train.report import progress
from ctllm_ray.train.tracking import records
from docs.generate import tables
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted((DOCS / "reference").glob("*.md"))
REFERENCE = "\n".join(tables.filled(f"reference/{f.name}", f.read_text(encoding="utf-8")) for f in PAGES)
PACKAGES = (
    resolve.SOURCES,
    resolve.STAGES,
    resolve.PASSES,
    resolve.MEASURES,
    resolve.OBJECTIVES,
    resolve.TASKS,
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]*)(#[^)]*)?\)")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_knows_every_source_stage_measure_and_objective_with_its_options(package: str) -> None:
    for name in resolve.names(package):
        assert f"`{name}`" in REFERENCE or f"## {name}\n" in REFERENCE, name
        for parameter in inspect.signature(resolve.resolve(package, name)).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert f"`{parameter.name}`" in REFERENCE, f"option {parameter.name} of {name}"


def test_the_reference_names_no_measure_that_does_not_exist() -> None:
    modules = {name.partition(".")[0] for name in resolve.names(resolve.MEASURES)}
    columns = {c for s in resolve.names(resolve.STAGES) for k in ("SCORES", "LABELS") for c in declared(s, k)}
    known = {*resolve.names(resolve.MEASURES), *columns, "lines.nothing_left"}
    for name in re.findall(r"`([a-z]+\.[a-z_0-9]+)`", REFERENCE):
        assert name.partition(".")[0] not in modules or name in known, name


def declared(stage: str, constant: str) -> tuple[str, ...]:
    return resolve.declared_names(resolve.STAGES, stage, constant)


def test_the_reference_knows_every_label_score_line_rule_and_lexicon() -> None:
    for package in (resolve.STAGES, resolve.PASSES):
        for name in resolve.names(package):
            for column in (
                c for kind in ("LABELS", "SCORES") for c in resolve.declared_names(package, name, kind)
            ):
                assert f"`{column}`" in REFERENCE, column
    lexicons = (REPOSITORY / "ctllm_ray/text/lexicons").glob("*.txt")
    for name in [*line_rules.DEFAULT, *line_rules.DESCRIBED, *(file.stem for file in lexicons)]:
        assert f"`{name}`" in REFERENCE, name


PARTS = {"data", "resources", "tokenizer", "tokens", "model", "train", "sweep", "serve", "evaluate"}


def test_the_reference_knows_every_key_of_a_recipe() -> None:
    parts = {
        "": recipe.Recipe, "data.": recipe.Data, "resources.": recipe.Resources,
        "tokenizer.": recipe_training.TokenizerPart,
        "tokens.": recipe_training.TokensPart, "model.": recipe_training.Model, "train.": recipe_training.Train,
        "resources.train.": recipe_training.TrainResources, "serve.": recipe_serving.Serve,
        "sweep.": recipe_sweep.Sweep,
        "resources.sweep.": recipe_sweep.SweepResources, "evaluate.": recipe_evaluation.Evaluate,
        "evaluate.bits.": recipe_evaluation.Bits, "evaluate.judge.": recipe_evaluation.Judge,
    }  # fmt: skip
    for prefix, part in parts.items():
        for key in part.model_fields.keys() - (set() if prefix.startswith("evaluate") else PARTS):
            assert f"`{prefix}{key}`" in REFERENCE, f"{prefix}{key}"


def test_the_reference_knows_every_kind_of_bad_record_and_every_exit_code() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (REPOSITORY / "ctllm_ray/corpus").rglob("*.py")]
    kinds = {kind for text in sources for kind in re.findall(r'\b(?:bad|Line)\([^)]*?, "([a-z_0-9]+)"', text)}
    kinds |= {kind for text in sources for kind in re.findall(r'"error\.([a-z_0-9]+)"', text)}
    assert len(kinds) > 10
    for kind in kinds:
        assert f"`error.{kind}`" in REFERENCE, kind
    for error in [errors.CtllmError, *errors.CtllmError.__subclasses__()]:
        assert f"\n| {error.exit_code} | " in REFERENCE, error.__name__


def test_the_reference_knows_every_verb() -> None:
    verbs = [command.callback.__name__ for command in cli.app.registered_commands if command.callback]
    for verb in [*verbs, *(str(group.name) for group in cli.app.registered_groups)]:
        assert f"\n| `{verb}` | " in REFERENCE, verb


def test_the_reference_has_the_model_sizes_as_they_are() -> None:
    for name, size in config.SIZES.items():
        parameters = config.parameters(size)
        figures = [size.layers, size.width, size.heads, size.ffn_width, size.context_tokens, size.vocab_size]
        row = [*figures, parameters, parameters - config.embedding_parameters(size)]
        assert f"| `{name}` | {' | '.join(f'{figure:,}' for figure in row)} |" in REFERENCE


def test_the_reference_knows_what_a_run_writes() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (REPOSITORY / "ctllm_ray/train").rglob("*.py")]
    kinds = {kind for text in sources for kind in re.findall(r'\bevent\(\s*"([a-z_]+)"', text)} | set(
        progress._SPOKEN
    )
    assert len(kinds) > 9
    named = {*kinds, *specials.SPECIALS[:11]}
    for part in (records.StepRecord, run_state.RunState):
        named |= {field.name for field in dataclasses.fields(part)}
    for file, function in (("checkpoint/export", "_lineage"), ("validation/validate", "_of_group")):
        body = (
            (REPOSITORY / f"ctllm_ray/train/{file}.py")
            .read_text(encoding="utf-8")
            .partition(f"def {function}(")[2]
        )
        keys = re.findall(r'^        "(\w+)":', body.partition("\ndef ")[0], re.MULTILINE)
        assert len(keys) > 5
        named |= {*keys}
    for name in named:
        assert f"`{name}`" in REFERENCE, name


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "cluster/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    file = REPOSITORY / page
    for target, anchor in LINK.findall(file.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        there = (file.parent / target).resolve() if target else file
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), f"{target}{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_examples_of_the_design_page_run(tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "ctllm_ray", tmp_path / "ctllm_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# (append|write) to (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for verb, name, code in blocks:
        with (tmp_path / name).open("a" if verb == "append" else "x", encoding="utf-8") as file:
            file.write(code)
    measure, stage, source = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    stages = yaml.safe_load(stage)
    stages[1]["rules"] = yaml.safe_load(measure) + stages[1]["rules"]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/a.csv").write_text(
        "url,date,body\nhttp://a.example,2023,文\n,2024,？？好\n,,\n", encoding="utf-8"
    )
    plain = {"name": "x", "version": "1", "seed": 1, "data": yaml.safe_load(source) | {"max_error_share": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain | {"stages": stages}), encoding="utf-8")
    script = (
        "import json\n"
        "from ctllm_ray.base import recipe\n"
        "from ctllm_ray.corpus import pipeline\n"
        "from ctllm_ray.corpus.engine import section\n"
        "run = lambda r, folder, splits: [section.run_split(r, folder, s) for s in splits]\n"
        "print(json.dumps(pipeline.clean(recipe.load_recipe('recipe.yaml'), run).counts))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "in": 3,
        "kept": 0,
        "reject:document.question_share": 1,
        "reject:year": 2,
    }
