"""The page about a run: what is on it, that it asks for nothing, and that other people's text stays text."""

from __future__ import annotations

import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base.errors import NotFound
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.shards.tokens import HELD_OUT, TRAIN, TokenShardWriter, table
from ctllm_ray.train.data.corpora import open_corpora
from ctllm_ray.train.report import curves, render
from ctllm_ray.train.report.curves import Axis
from ctllm_ray.train.report.run_facts import collect_facts
from ctllm_ray.train.schedule import rate
from ctllm_ray.train.tracking.records import Records, StepRecord

BATCH, SEQUENCE = 256, 64
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


class Clock:
    """Unix seconds that the fake run moves on."""

    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def recipe(root: Path, steps: int = 600) -> Recipe:
    first, second = {"网页": 0.75, "百科": 0.25}, {"网页": 0.25, "百科": 0.75}
    train = {
        "objective": {"use": "pretrain"}, "tokens": steps * BATCH, "batch_tokens": BATCH,
        "sequence_tokens": SEQUENCE,
        "packing": "concatenate", "document_attention": True, "max_epochs": 100, "block_sequences": 64,
        "mixture": [{"shares": first, "until_tokens": steps * BATCH * 3 // 4}, {"shares": second}],
        "schedule": {
            "use": "wsd", "peak_rate": 2e-3, "warmup_tokens": steps * BATCH // 20,
            "decay_tokens": steps * BATCH // 5,
        },
        "precision": "fp32", "validation": {"every_tokens": 40 * BATCH},
    }  # fmt: skip
    data = {"inputs": [{"use": "jsonl", "path": "in/*.jsonl", "name": "网页"}], "max_error_share": 0}
    plain = {"name": "tiny", "version": "1", "seed": 0, "data": data, "stages": [], "root": str(root)}
    return parse_recipe(plain | {"model": {"use": "tiny"}, "train": train})


def tokens_of(chosen: Recipe) -> None:
    """Token shards of two groups."""
    folder = chosen.folder("tokens")
    shards = []
    for group, documents in (("网页", 300), ("百科", 120)):
        for kind, share in ((TRAIN, 1.0), (HELD_OUT, 0.1)):
            n = int(documents * share)
            lengths = np.random.default_rng(n).integers(20, 200, n)
            ids = [np.array([1, *([7] * length), 2]) for length in lengths]
            with TokenShardWriter(folder, kind, group, 0, pa.uint16(), ()) as writer:
                names = [f"{group}/{kind}/{i}" for i in range(n)]
                writer.write(table(names, ids, lengths * 3, lengths, {}, pa.uint16()))
            shards += writer.shards
    rows = sum(shard.rows for shard in shards)
    facts = {"tokenizer": "ab", "vocab_size": "100", "bos": "1", "eos": "2", "pad": "3"}
    counts = {"in": rows, "kept": rows}
    manifest.write_manifest(folder, Manifest("tokens", "tiny", "1", "", {}, [], counts, shards, facts))
    open_corpora(chosen)  # writes DATA.json, as a run does when it begins


def fake_run(chosen: Recipe, steps: int = 600) -> None:
    """A run of several hundred steps with a spike, a rewind, a killed worker and a changed number of
    workers."""
    random, clock = np.random.default_rng(0), Clock()
    folder, given = chosen.folder("train"), chosen.train
    assert given is not None
    told = Records(folder, 1, clock=clock)
    told.event("started", step=0, workers=2)
    world, step = 2, 0
    while step < steps:
        step += 1
        loss = (
            2.6 + 6.6 * (1 + step / 9) ** -0.62 - 0.25 * max(0, step / steps - 0.8) + random.normal(0, 0.05)
        )
        if step == 300 and world == 2:
            names = [f"网页/{TRAIN}/{i}" for i in range(40)]
            facts = {"batch": 299, "loss": loss + 3.1, "bound": loss + 0.4, "documents": names}
            told.rewind(241)
            told.event("rewound", step=299, to_step=240, **facts)
            step = 241
            world = 1
            clock.now += 9
            told.event("resumed", step=240, workers=1, tokens=240 * BATCH)
            told.event("resized", step=240, workers=1, workers_before=2)
        seconds = 0.5 / world * (1 + 0.05 * random.random())
        clock.now += seconds
        told.step(
            StepRecord(
                step, step - 1, step * BATCH, BATCH - 4, loss,
                0.4 + 2 * math.exp(-step / 40) + 0.1 * random.random(),
                rate(given.schedule, step * BATCH, given.tokens), seconds, 0.002 * random.random(),
                BATCH / seconds,
                0.31 / seconds / 5,
            )
        )  # fmt: skip
        if step % 60 == 0:
            told.event("checkpoint", step=step, stall_s=0.02 + 0.01 * random.random(), bytes=29_000_000)
            told.roll(step + 1)
        if step % 40 == 0:
            bits = {"网页": 1.1 + loss / 4, "百科": 0.9 + loss / 4.4}
            groups = {
                g: {"bits_per_byte": b, "bits_per_char": 3 * b, "documents": 9} for g, b in bits.items()
            }
            told.validation(step, step * BATCH, groups)
    told.event("finished", step=steps)
    told.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    chosen = recipe(tmp_path_factory.mktemp("run"))
    tokens_of(chosen)
    fake_run(chosen)
    return chosen


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "action", "data", "poster"}
        ]


def read(html: str) -> Links:
    found = Links()
    found.feed(html)
    return found


def test_the_page_asks_nothing_of_any_server_and_its_links_lead_somewhere(made: Recipe) -> None:
    html = render.render_page(collect_facts(made))
    found = read(html)
    inside = {address.removeprefix("#") for address in found.addresses if address.startswith("#")}
    assert set(found.addresses) - {f"#{name}" for name in inside} == {"data:,"}
    assert inside <= found.ids
    assert "url(" not in html
    assert "default-src 'none'" in unescape(html)


def test_every_phrase_of_the_page_is_there_in_both_languages(made: Recipe) -> None:
    html = render.render_page(collect_facts(made))
    assert html.count('class="zh"') == html.count('class="en"') > 50


def test_the_page_states_loss_events_shares_and_lineage(made: Recipe, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    render.write_training_report(made, str(target))
    html = target.read_text()
    assert "网页/train/39" in html  # a document of the spike's batch
    assert (
        html.count('class="mark') == 2
    )  # resumption and resizing lie together; the rewind came from further on
    assert "loss spikes 1×" in html
    assert "resized 1×" in html
    for group in ("网页", "百科"):
        assert group in html
    assert collect_facts(made).fingerprint in html


def test_what_was_taken_is_counted_again_from_the_order_of_the_data(made: Recipe) -> None:
    before = sorted(Path(made.folder("train")).rglob("*"))
    first, second = collect_facts(made).phases
    assert sorted(Path(made.folder("train")).rglob("*")) == before  # reading writes nothing
    assert (first.first, first.last, second.last) == (0, 450, 600)
    rows = BATCH // SEQUENCE
    shares = {taken.group: taken.realised for taken in first.groups}
    assert shares == pytest.approx({"网页": 0.75, "百科": 0.25}, abs=0.01)
    assert sum(taken.targets + taken.padding for taken in second.groups) == 150 * rows * SEQUENCE


def test_a_run_without_its_shards_still_has_a_page(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, steps=80)
    fake_run(chosen, steps=80)
    facts = collect_facts(chosen)
    assert facts.phases == []
    assert facts.unaccounted in render.render_page(facts)


def test_a_run_of_one_step_without_loss_has_a_page(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, steps=80)
    told = Records(chosen.folder("train"), 1)
    told.step(StepRecord(1, 0, BATCH, 0, math.nan, math.nan, 1e-5, 0.0, 0.0, 0.0))
    told.close()
    assert "–" in render.render_page(collect_facts(chosen))


def test_a_run_that_has_not_begun_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not recorded a step yet"):
        collect_facts(recipe(tmp_path))


def test_hostile_names_of_documents_and_groups_stay_text(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, steps=80)
    fake_run(chosen, steps=80)
    told = Records(chosen.folder("train"), 81)
    told.event(HOSTILE, step=80, **{HOSTILE: HOSTILE, "documents": [HOSTILE]})
    told.validation(81, 81 * BATCH, {HOSTILE: {"bits_per_byte": 1.0, "bits_per_char": 3.0}})
    told.close()
    html = render.render_page(collect_facts(chosen))
    assert read(html).scripts == 3  # the data, the language switch and our own
    assert "<img" not in html
    assert re.search(r"<script>alert", html) is None


def test_records_of_many_steps_stay_a_small_page(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(3, 0.1, 200_000)
    values[77_777] = 50
    path = curves.raw_path(Axis(0, 200_000), curves.axis(values, log=True), np.arange(200_000.0), values)
    assert len(path) < 20_000
    assert curves.thin(values).most.max() == 50  # the spike is still seen


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 10), [0, 5, 10]),
        (Axis(0, 1e7), [0, 5e6, 1e7]),
        (Axis(0, 0.42), [0, 0.2, 0.4]),
        (Axis(2.5, 10.5, log=True), [3, 4, 5, 6, 8, 10]),
        (Axis(0.9, 120, log=True), [1, 3, 10, 30, 100]),
    ],
)
def test_ticks_are_round_and_few(axis: Axis, expected: list[float]) -> None:
    assert axis.ticks() == expected


def test_places_on_axes() -> None:
    assert [Axis(0, 10).place(v) for v in (-1, 0, 5, 20)] == [0, 0, 0.5, 1]
    assert Axis(1, 100, log=True).place(10) == pytest.approx(0.5)


def test_a_gap_is_left_where_a_value_is_not_finite() -> None:
    assert curves.path(Axis(0, 2), Axis(0, 1), [0, 1, 2], [0, math.nan, 1]) == "M0.0 1000.0M1000.0 0.0"


def test_smoothing_is_unbiased_at_either_end() -> None:
    assert curves.smooth(np.array([3.0, math.nan, 3.0]), 1.0).tolist() == pytest.approx([3, 3, 3])
    # a neighbour weighs half: (1 + 4 / 2) / 1.5 and (1 / 2 + 4) / 1.5
    assert curves.smooth(np.array([1.0, 4.0]), 0.5).tolist() == pytest.approx([2, 3])
    assert np.isnan(curves.smooth(np.array([math.nan]))).all()


def test_what_an_objective_tells_beside_its_loss_is_drawn_under_its_name(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, 4)
    tokens_of(chosen)
    told = Records(chosen.folder("train"), 1)
    for step in range(1, 5):
        facts = {"reward <margin>": math.nan if step == 2 else step / 8}
        told.step(
            StepRecord(step, step - 1, step * BATCH, BATCH, 2.0, 1.0, 1e-3, 0.1, 0.0, 1e3, metrics=facts)
        )
    told.close()
    page = render.render_page(collect_facts(chosen))
    assert 'id="plot-reward &lt;margin&gt;"' in page
    assert "reward <margin>" not in page
    assert "0.5000" in page  # the last value, for the cross-hair
