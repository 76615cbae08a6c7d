"""The web page in a real browser: what it asks, what it shows, and that nobody's text becomes more than
text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctllm_ray.serving.api import keys
from tests.inference.scripted_engine import ScriptedEngine
from tests.serving.apps import until
from tests.serving.browser import CHROMIUM, SHIFT, Browser, Tab
from tests.serving.conftest import Start
from tests.serving.stage import Play, playing

HOSTILE = '</div><img src=x onerror="document.title=1"><script>document.title=2</script>\u202eevil\x07\u200f'
LINEAGE = {
    "name": "zh_web", "version": "1", "run": "tiny", "precision": "fp32", "tokens": 2_097_152,
    "checkpoint": {"step": 512, "batch": 512, "folder": "checkpoints/00000512", "data": "a1ddaf68" * 8},
    "mixture": [
        {"shares": {"web": 0.75, "books": 0.25}, "until_tokens": 1_572_864},
        {"shares": {"web": 0.4, "books": 0.6}, "until_tokens": None},
    ],
    "data": {"generations": [{"corpora": [{"shards": [{"tokens": 1_672_032}, {"tokens": 1_679_500}]}]}]},
    "recipe": {"train": {"objective": {"use": "pretrain"}}}, "recipe_fingerprint": "ee60a55d" * 8,
    "code": {"commit": "907edb69", "torch": "2.13.0"},
    "files": {"model.safetensors": {"bytes": 33_400_000, "sha256": "56adfb04" * 8}},
}  # fmt: skip
REPORT = "<!doctype html><html><body><h1>the report</h1></body></html>"

Visit = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens a page in a tab of its own; at the end, no script failed and nothing was asked of anyone else."""
    tabs: list[tuple[Tab, str]] = []

    def visited(url: str, *, known: bool = True, **size: int) -> Tab:
        tab = Tab(browser, **size)
        tabs.append((tab, url))
        tab.open(url)
        if known:  # which model it is
            tab.until("document.title !== 'ctllm'")
        return tab

    yield visited
    for tab, url in tabs:
        complaints, addresses = (
            tab.complaints(),
            [e["request"]["url"] for e in tab.events("Network.requestWillBeSent")],
        )
        tab.close()
        assert complaints == []
        assert [a for a in addresses if not a.startswith((url, "data:"))] == []


def ask(tab: Tab, text: str = "你好") -> None:
    tab.write("#text", text)
    tab.press("Enter")


def answered(tab: Tab) -> None:
    tab.until("document.querySelectorAll('.turn').length > 0 && !document.querySelector('.busy')")


def test_an_answer_comes_piece_by_piece_and_ends_with_its_counts(visit: Visit) -> None:
    play = Play("春", "天", "来了", hold=True, pause_s=0.01)
    with playing(play) as stage:
        tab = visit(stage.url)
        ask(tab, "北京的")
        tab.shows(".made", "春天")
        assert tab.run("document.querySelector('.turn').ariaBusy") == "true"
        play.go_on.set()
        answered(tab)
        assert (tab.text(".given"), tab.text(".made")) == ("北京的", "春天来了")
        for part in ("问 7 + 答 3 词元", "首字 0.", "词元/s"):
            assert part in tab.text(".counts")
        assert tab.text("#room") == "上下文 10 / 512"
        assert tab.text("#text") == ""


def test_a_base_model_continues_a_text_and_the_page_says_what_it_cannot(visit: Visit) -> None:
    with playing(lineage=LINEAGE) as stage:
        tab = visit(stage.url)
        assert "没有学过回答问题" in tab.text("#honest")
        assert "8.35M 参数" in tab.text("#honest")
        ask(tab, "从前有一座山，\n")
        answered(tab)
        path, body = stage.asked[0]
        assert (path, body["prompt"], body["model"]) == ("/v1/completions", "从前有一座山，\n", "tiny-1")
        assert body["stream_options"] == {"include_usage": True}


def test_a_chat_model_is_told_what_was_said_before_without_answers_that_failed(visit: Visit) -> None:
    with playing(Play("甲"), Play(status=500), Play("乙"), chat=True) as stage:
        tab = visit(stage.url)
        tab.click("#to-settings")
        tab.write("#system", "说短些")
        tab.press("Escape")
        for question in ("一", "二", "三"):
            ask(tab, question)
            answered(tab)
        said = [(m["role"], m["content"]) for m in stage.asked[2][1]["messages"]]
        assert stage.asked[2][0] == "/v1/chat/completions"
        assert said == [("system", "说短些"), ("user", "一"), ("assistant", "甲"), ("user", "三")]


def test_settings_are_sent_and_a_seed_only_where_there_is_one(visit: Visit) -> None:
    with playing() as stage:
        tab = visit(stage.url)
        ask(tab)
        answered(tab)
        assert "seed" not in stage.asked[0][1]
        tab.click("#to-settings")
        tab.write("#max_tokens", "33")
        tab.write("#seed", "7")
        tab.run(
            "for (const [id, v] of [['temperature', 0], ['top_p', 0.5]]) document.getElementById(id).value = "
            "v"
        )
        tab.click("#settings .go")
        ask(tab)
        answered(tab)
        body = stage.asked[1][1]
        assert [body[name] for name in ("temperature", "top_p", "max_tokens", "seed")] == [0, 0.5, 33, 7]


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stopping_ends_the_request_and_keeps_what_came(visit: Visit, how: str) -> None:
    with playing(Play("一", "二", "三", hold=True)) as stage:
        tab = visit(stage.url)
        ask(tab)
        tab.shows(".made", "一二")
        tab.click("#stop") if how == "button" else tab.press("Escape")
        answered(tab)
        assert stage.left.wait(30)
        assert "已停止" in tab.text(".counts")
        assert tab.text(".made") == "一二"
        assert tab.run("document.querySelector('.trouble').hidden")


def test_an_answer_is_written_again_and_a_question_is_changed_in_place(visit: Visit) -> None:
    with playing(Play("甲"), Play("乙"), Play("丙"), chat=True) as stage:
        tab = visit(stage.url)
        ask(tab, "一")
        answered(tab)
        tab.click(".again")
        tab.shows(".made", "乙")
        answered(tab)
        tab.write("#text", "草稿")
        tab.click(".edit")
        assert tab.run("document.getElementById('text').value") == "一"
        tab.press("Escape")
        assert tab.run("document.getElementById('text').value") == "草稿"
        tab.click(".edit")
        ask(tab, "二")
        tab.shows(".made", "丙")
        answered(tab)
        assert tab.run("document.querySelectorAll('.turn').length") == 1
        assert [body["messages"][-1]["content"] for _, body in stage.asked] == ["一", "一", "二"]
        assert all(len(body["messages"]) == 1 for _, body in stage.asked)


def test_enter_sends_but_not_with_shift_nor_while_an_input_method_composes(visit: Visit) -> None:
    with playing() as stage:
        tab = visit(stage.url)
        tab.write("#text", "ni")
        tab.press("Enter", SHIFT)
        tab.press("Enter", code=229)
        tab.run(
            "document.getElementById('text').dispatchEvent(new KeyboardEvent('keydown',"
            "{key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
        )
        assert tab.run("document.getElementById('text').value") == "ni\n"
        assert tab.run("document.querySelectorAll('.turn').length") == 0
        tab.press("Enter")
        answered(tab)
        assert len(stage.asked) == 1


def test_what_is_copied_is_the_text_itself(visit: Visit) -> None:
    with playing(Play("甲\u202e乙"), chat=True) as stage:
        tab = visit(stage.url)
        tab.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        ask(tab)
        answered(tab)
        tab.click(".copy")
        tab.shows(".copy", "已复制")
        assert tab.run("window.copied") == "甲\u202e乙"


def test_text_of_a_model_a_server_or_a_recipe_is_never_html(visit: Visit) -> None:
    lineage = LINEAGE | {"name": HOSTILE, "mixture": [{"shares": {HOSTILE: 1.0}, "until_tokens": None}]}
    lineage["files"] = {HOSTILE: {"bytes": 1, "sha256": HOSTILE}}
    plays = (Play(HOSTILE[:20], HOSTILE[20:]), Play(status=400, message=HOSTILE))
    with playing(*plays, lineage=lineage, id=HOSTILE) as stage:
        tab = visit(stage.url)
        for _ in range(2):
            ask(tab, HOSTILE)
            answered(tab)
        assert tab.text(".made") == HOSTILE.replace("\u202e", "U+202E").replace("\x07", "U+0007").replace(
            "\u200f", "U+200F"
        )
        assert "<script>" in tab.text(".trouble:not([hidden])")
        tab.run("location.hash = '#card'")
        tab.shows("#facts", "<script>")
        assert tab.run("document.querySelectorAll('img, main script').length") == 0
        assert tab.run("document.title") not in ("1", "2")
        shown = "[...document.querySelectorAll('main')].map((m) => m.textContent).join('')"
        assert tab.run(f"/[\\u202e\\u200f\\u0007]/.test({shown})") is False


def test_a_key_is_asked_for_until_it_is_right_and_kept_in_this_tab_only(visit: Visit) -> None:
    with playing(key="sk-right") as stage:
        tab = visit(stage.url, known=False)
        tab.shows("#key-why", "只回答有密钥的人")
        tab.write("#secret", "sk-wrong")
        tab.press("Enter")
        tab.shows("#key-why", "unknown API key")
        tab.write("#secret", " sk-right ")
        tab.press("Enter")
        tab.shows("#title", "tiny-1")
        assert tab.run("[sessionStorage.getItem('ctllm-key'), localStorage.length]") == ["sk-right", 0]
        assert tab.run("document.getElementById('secret').value") == ""
        ask(tab)
        answered(tab)
        assert tab.text(".made") == "好"
        stage.key = "sk-rotated"
        ask(tab)
        tab.shows("#key-why", "unknown API key")
        tab.click("#no-key")
        answered(tab)
        assert "没有密钥" in tab.text(".turn:last-child .trouble")


def test_too_many_requests_say_how_long_to_wait_and_can_be_asked_again(visit: Visit) -> None:
    refusal = Play(status=429, retry_s=2, message="60 requests per minute", code="rate_limit_exceeded")
    with playing(refusal, Play("好")) as stage:
        tab = visit(stage.url)
        ask(tab)
        tab.shows(".trouble", "秒后可以再试")
        assert tab.text(".trouble").startswith("问得太快，超过了每分钟的次数。 60 requests per minute")
        assert tab.run("document.querySelector('.again').disabled")
        tab.until("!document.querySelector('.again').disabled")
        tab.click(".again")
        tab.shows(".made", "好")
        assert tab.run("document.querySelector('.trouble').hidden")


@pytest.mark.parametrize(
    ("play", "chinese", "english", "kept"),
    [
        (Play(status=503), "模型没有准备好", "The model is not ready", ""),
        (Play(status=502), "服务器出错了", "The server failed", ""),
        (Play("半", "", hold=True, ends="broken"), "连接中途断了", "The connection was lost", "半"),
        (Play("半", "", hold=True, ends="short"), "连接中途断了", "The connection was lost", "半"),
        (Play("半", "", hold=True, ends="garbage"), "读不懂", "cannot be read", "半"),
        (
            Play("半", "", hold=True, ends="error", message="the engine died"),
            "the engine died",
            "the engine died",
            "半",
        ),
    ],
    ids=["not ready", "bad gateway", "broken", "without DONE", "garbage", "error event"],
)
def test_what_goes_wrong_is_said_in_both_languages(
    visit: Visit, play: Play, chinese: str, english: str, kept: str
) -> None:
    with playing(play) as stage:
        tab = visit(stage.url)
        ask(tab)
        if kept:
            tab.shows(".made", kept)
            play.go_on.set()
        answered(tab)
        assert chinese in tab.text(".trouble")
        tab.click("[data-set-lang=en]")
        assert english in tab.text(".trouble")
        assert tab.text(".made") == kept


def test_a_server_that_went_away_is_said_and_found_again(visit: Visit) -> None:
    with playing() as stage:
        tab = visit(stage.url)
    tab.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    ask(tab)
    answered(tab)
    assert "连不上服务器" in tab.text(".trouble")
    with playing(ready=False) as stage:
        tab = visit(stage.url)
        tab.shows("#state", "未就绪")
        stage.ready = True
        tab.shows("#state", "就绪")


def test_an_answer_gets_what_the_context_has_room_for(visit: Visit) -> None:
    over = Play(status=400, code="context_length_exceeded", message="too long")
    with playing(over, Play("好"), prompt_tokens=500) as stage:
        tab = visit(stage.url)
        ask(tab)
        tab.shows(".made", "好")
        assert [body["max_tokens"] for _, body in stage.asked] == [256, 12]
    with playing(over, prompt_tokens=600) as stage:
        tab = visit(stage.url)
        ask(tab)
        tab.shows(".trouble", "超过了模型的上下文")


def test_language_and_colours_are_remembered_and_the_conversation_is_not(visit: Visit) -> None:
    with playing() as stage:
        tab = visit(stage.url)
        tab.scheme("dark")
        dark = tab.run("getComputedStyle(document.body).backgroundColor")
        assert tab.text("#send") == "发送"
        ask(tab)
        answered(tab)
        tab.click("[data-set-lang=en]")
        tab.click("#theme")
        tab.open(stage.url)
        tab.shows("#send", "Send")
        assert tab.run("document.querySelectorAll('.turn').length") == 0
        assert tab.run("document.documentElement.lang") == "en"
        assert tab.run("getComputedStyle(document.body).backgroundColor") != dark
        assert tab.run("document.getElementById('text').placeholder").startswith("Write")


def test_the_card_tells_where_the_model_comes_from(visit: Visit) -> None:
    with playing(lineage=LINEAGE) as stage:
        tab = visit(stage.url)
        tab.click("a[href='#card']")
        tab.shows("#facts", "zh_web 1 · tiny")
        facts = tab.text("#facts")
        for part in (
            "ee60a55d" * 8,
            "a1ddaf68" * 8,
            "56adfb04" * 8,
            "512",
            "2,097,152",
            "2 个，3.35M 词元",
            "33.4 MB",
        ):
            assert part in facts
        assert "books 60.0 %" in facts
        assert tab.run("document.querySelector('a[aria-current]').hash") == "#card"


def test_a_model_of_unknown_origin_is_called_that(visit: Visit) -> None:
    with playing() as stage:
        tab = visit(f"{stage.url}")
        tab.click("a[href='#card']")
        tab.shows("#facts", "来历不明")


def test_reports_are_offered_only_where_there_are_any_and_cannot_reach_the_page(visit: Visit) -> None:
    with playing() as stage:
        assert not visit(stage.url).run("document.getElementById('to-reports').checkVisibility()")
    with playing(reports={"train": REPORT}, key="sk-1") as stage:
        tab = visit(stage.url, known=False)
        tab.shows("#key-why", "密钥")
        tab.write("#secret", "sk-1")
        tab.press("Enter")
        tab.click("#to-reports")
        tab.until("document.getElementById('report').src.endsWith('reports/train?lang=zh')")
        assert not tab.run("document.querySelector('[data-set-report=clean]').checkVisibility()")
        tab.click("[data-set-lang=en]")
        tab.until("document.getElementById('report').src.endsWith('reports/train?lang=en')")
        assert tab.run("document.getElementById('report').contentDocument") is None  # another origin
        assert "/reports/train" in stage.seen


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_phone_does_not_scroll_sideways(visit: Visit, lang: str) -> None:
    reports = {"clean": REPORT, "train": REPORT}
    with playing(
        Play("a" * 300, "\u0301" * 200), lineage=LINEAGE, reports=reports, id="a-name-of-some-length-1"
    ) as stage:
        tab = visit(f"{stage.url}", width=360, height=640)
        tab.run(f"document.querySelector('[data-set-lang={lang}]').click()")
        ask(tab)
        answered(tab)
        for tab_name in ("#ask", "#card", "#reports"):
            tab.run(f"location.hash = '{tab_name}'")
            tab.until(f"document.querySelector('{tab_name}').checkVisibility()")
            wide = "[...document.querySelectorAll('html, main, #log')].filter((e) => e.scrollWidth > e.clientWidth)"
            assert tab.run(f"{wide}.map((e) => e.id || e.tagName)") == []
        for dialog in ("settings", "key"):
            tab.run(f"document.getElementById('{dialog}').showModal()")
            assert tab.run(f"document.getElementById('{dialog}').getBoundingClientRect().right") <= 360
            tab.run(f"document.getElementById('{dialog}').close()")


def test_nothing_but_the_caret_moves_while_an_answer_is_written(visit: Visit) -> None:
    play = Play(*["字" * 30] * 40, hold=True, pause_s=0.03)
    with playing(play) as stage:
        tab = visit(stage.url)
        ask(tab)
        tab.shows(".made", "字" * 600)
        tab.run("document.styleSheets[0].insertRule('.made::after { content: none !important }')")
        tab.run(
            "new PerformanceObserver((all) => { for (const one of all.getEntries()) window.moved += "
            "one.value; })"
            ".observe({type: 'layout-shift'}); window.moved = 0"
        )
        play.go_on.set()
        answered(tab)
        assert tab.run("window.moved") == 0


def test_the_end_stays_in_view_until_a_hand_scrolls_away(visit: Visit) -> None:
    play = Play(*["字" * 60 + "\n"] * 80, hold=True, pause_s=0.01)
    log = "document.getElementById('log')"
    at_end = f"{log}.scrollHeight - {log}.scrollTop - {log}.clientHeight < 24"
    with playing(play) as stage:
        tab = visit(stage.url)
        ask(tab)
        tab.shows(".made", "字" * 60)
        tab.until(f"{log}.scrollTop > 100 && {at_end}")
        tab.wheel(600, 300, -200)
        tab.until("document.getElementById('down').checkVisibility()")
        away = tab.run(f"{log}.scrollTop")
        play.go_on.set()
        answered(tab)
        assert tab.run(f"{log}.scrollTop") <= away
        tab.click("#down")
        tab.until(f"{at_end} && document.getElementById('down').hidden")


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_everything_that_can_be_used_has_a_name(visit: Visit, lang: str) -> None:
    with playing(lineage=LINEAGE, reports={"clean": REPORT}) as stage:
        tab = visit(stage.url)
        tab.run(f"document.querySelector('[data-set-lang={lang}]').click()")
        ask(tab)
        answered(tab)
        unnamed, roles = [], set()
        for opened in ("null", "document.getElementById('settings').showModal()"):
            tab.run(opened)
            for node in tab.call("Accessibility.getFullAXTree")["nodes"]:
                role = "" if node["ignored"] else node["role"]["value"]
                roles.add(role)
                usable = role in {"button", "link", "textbox", "slider", "spinbutton", "dialog", "log"}
                if usable and not node["name"]["value"]:
                    unnamed.append(node)
        assert unnamed == []
        assert {"log", "button", "link", "textbox", "slider", "spinbutton", "dialog"} <= roles


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_dark_on_light_or_light_on_dark_enough(visit: Visit, scheme: str) -> None:
    contrast = """(() => {
      const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (e) => { const c = getComputedStyle(e).backgroundColor;
        return c !== 'rgba(0, 0, 0, 0)' ? c : ground(e.parentElement); };
      const ratio = (e) => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05); };
      const words = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.disabled
        && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
      return words.map((e) => [ratio(e), e.innerText]).filter(([r]) => r < 4.5);
    })()"""
    with playing(Play("甲\x07"), Play(status=503), lineage=LINEAGE, chat=True) as stage:
        tab = visit(stage.url)
        tab.scheme(scheme)
        for _ in range(2):
            ask(tab)
            answered(tab)
        assert tab.run(contrast) == []
        tab.run("location.hash = '#card'")
        tab.until("document.querySelector('#facts').checkVisibility()")
        assert tab.run(contrast) == []


def test_the_page_and_the_real_api_understand_each_other(visit: Visit, start: Start) -> None:
    client = start(ScriptedEngine(delay_s=0.005))
    tab = visit(str(client.http.base_url) + "/")
    ask(tab, "春天来了")
    answered(tab)
    assert tab.run("document.querySelector('.trouble').hidden"), tab.text(".trouble")
    assert "春天" in tab.text(".made")
    assert "词元/s" in tab.text(".counts")
    assert "长度上限" in tab.text(".counts")


def test_a_key_opens_the_reports_of_the_real_api_in_their_frame(
    visit: Visit, start: Start, tmp_path: Path
) -> None:
    secret = keys.create_key(str(tmp_path / "keys.json"), "team-a")
    (tmp_path / "train.html").write_text(REPORT)
    client = start(reports={"train": str(tmp_path / "train.html")})
    tab = visit(str(client.http.base_url) + "/", known=False)
    tab.shows("#key-why", "密钥")
    tab.write("#secret", secret)
    tab.press("Enter")
    tab.click("#to-reports")

    def statuses() -> list[int]:
        tab.run("0")  # what happened meanwhile is told
        told = [e["response"] for e in tab.events("Network.responseReceived")]
        return [response["status"] for response in told if "/reports/train" in response["url"]]

    until(lambda: statuses() == [200])
