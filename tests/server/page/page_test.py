#!/usr/bin/env python3
"""Uses the server's page in a headless Chromium: page_test.py ROOT OF THE PROJECT [PROGRAM] [unittest's arguments]

Most tests meet answers that are made up (page_mock.py); with the PROGRAM some meet `runahead serve` on the demo model. Ends with
77, which CTest shows as skipped, where there is no Chromium. RUNAHEAD_PICTURES=DIR keeps pictures of the page there.
"""
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from browser import Browser, find_chromium
from page_mock import Mock, first_state, rank, recent

ROOT = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[3]
PROGRAM = sys.argv[2] if len(sys.argv) > 2 and os.access(sys.argv[2], os.X_OK) else None
PAGE = ROOT / "src/server/page"
HOSTILE = "<img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script> [x](javascript:hurt) &amp; <b>bold</b>"
EXPECTED = re.compile(r"Failed to load resource: .*(40\d|429|501|net::ERR_(CONNECTION_\w+|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED|INCOMPLETE_CHUNKED_ENCODING))")

ANSWERED = "!document.querySelector('[aria-busy]') && document.querySelectorAll('.answer .facts:not(:empty)').length"


def policy():
    constant = re.search(r"kPagePolicy =(.*?);\n\n", (PAGE / "page.h").read_text(), re.S)[1]
    return "".join(re.findall(r'"([^"]*)"', constant))


class PageTest(unittest.TestCase):
    """A browser for all tests of a class; each test opens the page anew."""

    @classmethod
    def setUpClass(cls):
        cls.browser = Browser(find_chromium())
        cls.addClassCleanup(cls.browser.close)

    def open(self, url):
        self.browser.prefer()
        self.browser.resize(1280, 860)
        self.browser.open("about:blank")
        self.browser.console.clear()
        self.browser.requests.clear()
        self.browser.open(url + "/")
        self.browser.run("sessionStorage.clear()")
        self.url = url

    def tearDown(self):
        if not hasattr(self, "url"):
            return
        unexpected = [line for line in self.browser.console if not EXPECTED.search(line)]
        self.assertEqual(unexpected, [], "the browser's console")
        elsewhere = {url for url in self.browser.requests if not url.startswith((self.url, "about:", "data:"))}
        self.assertEqual(elsewhere, set(), "requests to other hosts")

    def text(self, selector):
        return self.browser.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def say(self, text):
        self.browser.run("document.getElementById('message').focus()")
        self.browser.write(text)
        self.browser.key("Enter")

    def picture(self, name):
        if "RUNAHEAD_PICTURES" in os.environ:
            self.browser.picture(os.path.join(os.environ["RUNAHEAD_PICTURES"], name))


class MadeUp(PageTest):
    def setUp(self):
        self.mock = Mock(PAGE, policy())
        self.addCleanup(self.mock.close)
        self.open(self.mock.url)
        self.browser.wait("document.getElementById('model').textContent === 'mock'")

    def test_answers_a_message(self):
        self.say("Where from?")
        self.browser.wait(f"{ANSWERED} === 1")
        path, body = self.mock.bodies[0]
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(body["messages"], [{"role": "user", "content": "Where from?"}])
        self.assertEqual(body["model"], "mock")
        self.assertTrue(body["stream"] and body["return_progress"] and body["stream_options"]["include_usage"])
        self.assertEqual((body["temperature"], body["max_tokens"]), (0, 512))
        self.assertNotIn("seed", body)
        self.assertEqual(self.text(".answer pre"), "print('a < b')")
        self.assertEqual(self.text(".answer strong"), "bold")
        self.assertIn("first token after 813 ms (predicted 780 ms)", self.text(".answer .facts"))
        self.assertIn("512 of them cached", self.text(".answer .facts"))
        self.assertTrue(self.browser.run("document.getElementById('announce').textContent").startswith("Answer: Rotterdam"))
        self.say("And then?")
        self.browser.wait(f"{ANSWERED} === 2")
        self.assertEqual([m["role"] for m in self.mock.bodies[1][1]["messages"]], ["user", "assistant", "user"])

    def test_shows_what_is_hostile_as_text(self):
        self.mock.text = f"{HOSTILE}\n\n# {HOSTILE}\n\n- {HOSTILE}\n\n```{HOSTILE}\n{HOSTILE}\n```\n"
        self.mock.state.update(model=HOSTILE, recent=[{**recent(1), "finish": HOSTILE}], running=1,
                               ranks=[rank(device=HOSTILE, doing=HOSTILE)],
                               requests=[{"id": HOSTILE, "state": HOSTILE, "prompt_tokens": 9, "prompt_done": 1, "cached_tokens": 0, "new_tokens": 0, "predicted_ttft_ms": 0, "predicted_left_ms": 0, "elapsed_ms": 1}])
        self.say(HOSTILE)
        self.browser.wait(f"{ANSWERED} === 1 && document.querySelector('#ranks h3').textContent.includes('<img')")
        self.assertIn(HOSTILE, self.text(".answer .text"))
        self.assertEqual(self.text(".question p"), HOSTILE)
        self.assertIn(HOSTILE, self.text("#requests"))
        self.assertFalse(self.browser.run("Boolean(window.hurt)"))
        self.assertEqual(self.browser.run("document.querySelectorAll('main :is(img, script, a, b), aside :is(img, script, a, b)').length"), 0)

    def test_takes_no_time_over_odd_markdown(self):
        self.mock.text = "`" * 3000 + " *" * 3000 + "**" * 3000 + "\n" + "``` `` ` " * 500
        self.say("go")
        self.browser.wait(f"{ANSWERED} === 1", seconds=30)
        took = self.browser.run("import('/page/markdown.js').then((m) => { const t = performance.now(); "
                                "for (const s of ['`', '* ', '**a', '*a ', '- ', '#', '`` ` ']) m.markdown(s.repeat(20000)); return performance.now() - t; })")
        self.assertLess(took, 5000, "ms for 7 texts of up to 120 kB")

    def test_stops_with_escape(self):
        self.mock.plan = "hold"
        self.say("Where from?")
        self.browser.wait("document.querySelector('.answer progress').value > 0.4")
        self.assertIn("3,072 of 6,012 tokens · 512 cached · about 368 ms left", self.text(".answer .progress"))
        self.picture("reading.png")
        self.browser.key("Escape")
        self.assertTrue(self.mock.left.wait(20), "the connection was not closed")
        self.browser.wait("!document.getElementById('send').hidden")
        self.assertIn("Stopped before the answer began", self.text(".answer"))

    def test_stops_with_the_button_and_keeps_the_documents(self):
        self.browser.run("document.getElementById('load-sample').click()")
        self.browser.wait("document.getElementById('message').value === 'Where from?'")
        self.mock.plan = "hold"
        self.browser.key("Enter")
        self.browser.wait("document.querySelector('.answer progress').value > 0.4")
        self.browser.run("document.getElementById('stop').click()")
        self.assertTrue(self.mock.left.wait(20))
        self.browser.wait("!document.getElementById('send').hidden")
        self.mock.plan = "answer"
        self.say("What cargo?")
        self.browser.wait(f"{ANSWERED} === 1")
        messages = self.mock.bodies[-1][1]["messages"]
        self.assertEqual(len(messages), 1)
        self.assertTrue(messages[0]["content"].startswith("Log book.\nLog book."))
        self.assertTrue(messages[0]["content"].endswith("Log book.\n\nWhat cargo?"))

    def test_asks_questions_of_a_model_without_template(self):
        self.mock.plan, self.mock.text = "no chat", " Hull."
        self.browser.run("document.getElementById('load-sample').click()")
        self.browser.wait("document.getElementById('message').value === 'Where from?'")
        self.browser.key("Enter")
        self.browser.wait(f"{ANSWERED} === 1")
        self.assertIn("Without a chat template", self.text("#form-note"))
        path, body = self.mock.bodies[-1]
        self.assertEqual(path, "/v1/completions")
        self.assertTrue(body["prompt"].endswith("Log book.\n\nQuestion: Where from?\nAnswer:"))
        self.assertEqual(self.text(".answer .text"), "Hull.")
        self.browser.run("document.querySelector('#suggestions button').click()")
        self.browser.wait(f"{ANSWERED} === 2")
        self.assertTrue(self.mock.bodies[-1][1]["prompt"].endswith("Log book.\n\nQuestion: Where from?\nAnswer: Hull.\n\nQuestion: Where to?\nAnswer:"))

    def test_says_what_went_wrong(self):
        self.mock.plan = "busy"
        self.say("one")
        self.browser.wait("document.querySelector('.notice')")
        self.assertIn("busy: 64 requests wait already. It asks to be tried again in 7 s", self.text(".notice"))
        self.picture("busy.png")
        for plan, says in (("broken", "not complete"), ("late error", "rank 1 is lost")):
            self.mock.plan = plan
            self.browser.run("document.querySelector('.notice button:last-child').click()")
            self.browser.wait(f"document.querySelector('.notice')?.innerText.includes({json.dumps(says)})")
        self.mock.plan = "answer"
        self.browser.run("document.querySelector('.notice button:last-child').click()")
        self.browser.wait("!document.querySelector('[aria-busy]') && document.querySelector('.answer:last-child')?.innerText.includes('first token')")
        self.assertEqual(self.mock.bodies[-1][1]["messages"], [{"role": "user", "content": "one"}])

    def test_asks_for_the_key_and_keeps_it_in_the_tab(self):
        self.mock.key = "secret"
        self.browser.wait("document.getElementById('health-text').textContent === 'key wanted'")
        self.say("one")
        self.browser.wait("document.querySelector('.notice')")
        self.assertIn("wants an API key. The key is wrong <b>or</b> missing", self.text(".notice"))
        self.browser.run("document.querySelector('.notice button').click()")
        self.browser.wait("document.activeElement.id === 'key'")
        self.browser.write("secret")
        self.picture("settings.png")
        self.browser.key("Enter")
        self.browser.wait("document.getElementById('health-text').textContent === 'ready'")
        self.say("two")
        self.browser.wait(f"{ANSWERED} === 1")
        self.assertIn("secret", self.browser.run("JSON.stringify(sessionStorage)"))
        self.assertEqual(self.browser.run("localStorage.length"), 0)

    def test_sends_the_settings(self):
        self.browser.run("""(() => { document.getElementById('open-settings').click(); const f = document.getElementById('settings-form').elements;
          f.system.value = 'Be brief.'; f.temperature.value = '0.7'; f.max_tokens.value = '33'; f.seed.value = '5'; document.querySelector('#settings .primary').click(); })()""")
        self.say("one")
        self.browser.wait(f"{ANSWERED} === 1")
        body = self.mock.bodies[0][1]
        self.assertEqual([body[name] for name in ("temperature", "max_tokens", "seed")], [0.7, 33, 5])
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})

    def test_attaches_files_that_are_text(self):
        attach = """(async () => { const files = new DataTransfer();
          for (const [name, data] of [['a.txt', 'caf\\u00e9 text'], ['b.bin', new Uint8Array([0xff, 0xfe, 0])]]) files.items.add(new File([data], name));
          const input = document.getElementById('file'); input.files = files.files; input.dispatchEvent(new Event('change')); })()"""
        self.browser.run(attach)
        self.browser.wait("document.querySelectorAll('#documents li').length === 1 && document.querySelector('.notice')")
        self.assertIn("b.bin: this is not text", self.text(".notice"))
        self.say("Why?")
        self.browser.wait(f"{ANSWERED} === 1")
        self.assertEqual(self.mock.bodies[0][1]["messages"][0]["content"], "caf\u00e9 text\n\nWhy?")

    def test_draws_ranks_requests_and_timelines(self):
        self.mock.state.update(running=1, waiting=1, recent=[recent(2, ranks=3), recent(1)],
                               ranks=[rank(doing="gang", requests=1), rank(doing="answering", pages_used=256, pages_cached=128)],
                               requests=[{"id": "cmpl-9", "state": "reading", "prompt_tokens": 4000, "prompt_done": 1000, "cached_tokens": 10, "new_tokens": 0, "predicted_ttft_ms": 900, "predicted_left_ms": 640, "elapsed_ms": 12}])
        self.browser.wait("document.querySelector('#recent .timeline')")
        self.assertEqual(self.browser.run("document.querySelectorAll('#recent > li').length"), 2)
        self.assertEqual(self.browser.run("document.querySelectorAll('.timeline g').length"), 3, "a lane for each rank")
        for kind in ("compute", "wait", "send", "receive"):
            self.assertGreater(self.browser.run(f"document.querySelectorAll('.timeline rect.{kind}').length"), 0, kind)
        self.assertIn("url(\"#hatch\")", self.browser.run("getComputedStyle(document.querySelector('.timeline .wait')).fill"))
        inside = self.browser.run("""(() => { const p = document.querySelector('.timeline').getBoundingClientRect();
          return [...document.querySelectorAll('.timeline rect')].every((r) => { const b = r.getBoundingClientRect(); return b.left >= p.left - 1 && b.right <= p.right + 1.5; }); })()""")
        self.assertTrue(inside, "an event lies outside of its picture")
        cells = self.browser.run("[...document.querySelectorAll('.numbers tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))")
        tokens = [int(row[1].replace(",", "")) for row in cells]
        self.assertEqual(sum(tokens), 6012)
        self.assertEqual(cells[0][2], "740.0", "rank 0 computes all of its time")
        self.assertIn("4 % later than predicted", self.text("#recent .facts"))
        self.assertIn("1,000 of 4,000 prompt tokens · 10 cached · about 640 ms left", self.text("#requests"))
        widths = self.browser.run("[...document.querySelectorAll('#ranks li:last-child .pages rect')].map((r) => r.getAttribute('width'))")
        self.assertEqual(widths, ["100%", "75%", "50%"])
        self.picture("ranks.png")
        self.browser.prefer(prefers_color_scheme="dark")
        self.picture("ranks-dark.png")

    def test_opens_the_newest_prompt_and_keeps_what_a_person_opened(self):
        opened = "JSON.stringify([...document.querySelectorAll('#recent > li > details')].map((d) => d.open))"
        self.mock.state["recent"] = [recent(2), recent(1)]
        self.browser.wait(f"{opened} === '[true,false]'")
        self.browser.run("document.querySelector('#recent > li:last-child summary').click()")
        self.mock.state["recent"] = [recent(3), recent(2), recent(1)]
        self.browser.wait(f"{opened} === '[true,false,true]'")

    def test_says_that_the_engine_failed(self):
        self.mock.state.update(healthy=False, failure="rank 1: the device is lost")
        self.browser.wait("document.getElementById('health-text').textContent === 'failed'")
        self.assertIn("rank 1: the device is lost", self.text("#monitor-alert"))

    def test_finds_the_server_again(self):
        port = self.mock.server.server_address[1]
        self.mock.close()
        self.browser.wait("document.getElementById('health-text').textContent === 'not reachable'")
        self.say("one")
        self.browser.wait("document.querySelector('.notice')")
        self.assertIn("The server does not answer", self.text(".notice"))
        self.mock = Mock(PAGE, policy(), port)
        self.addCleanup(self.mock.close)
        self.browser.wait("document.getElementById('health-text').textContent === 'ready'", seconds=40)
        self.assertTrue(self.browser.run("document.getElementById('monitor-alert').hidden"))

    def test_needs_no_mouse(self):
        self.assertEqual(self.browser.run("document.activeElement.id"), "message")
        self.browser.write("line one")
        self.browser.key("Enter", shift=True)
        self.browser.write("line two")
        self.assertEqual(self.mock.bodies, [])
        self.browser.key("Enter")
        self.browser.wait(f"{ANSWERED} === 1")
        self.assertEqual(self.mock.bodies[0][1]["messages"][0]["content"], "line one\nline two")
        self.mock.state["recent"] = [recent(1)]
        self.browser.wait("document.querySelector('#recent .timeline')")
        self.browser.run("document.body.tabIndex = -1, document.body.focus()")
        seen = []
        for _ in range(40):
            self.browser.key("Tab")
            name = self.browser.run("document.activeElement.id || document.activeElement.tagName + ':' + document.activeElement.innerText")
            if name in seen or name.startswith("BODY"):
                break
            seen.append(name)
            shown = self.browser.run("getComputedStyle(document.activeElement).outlineStyle !== 'none' || document.activeElement.id === 'message'")
            self.assertTrue(shown, f"nothing shows that {name} has the focus")
        for name in ("new", "open-settings", "scroll", "message", "attach", "send"):
            self.assertIn(name, seen)
        self.assertTrue(any(name.startswith("SUMMARY") for name in seen), seen)
        unnamed = self.browser.run("""[...document.querySelectorAll('button, input, textarea, select, progress, [role=img], nav, aside, main, dialog')].filter((e) =>
          !(e.ariaLabel || e.innerText?.trim() || e.textContent.trim() || e.labels?.length || e.getAttribute('aria-labelledby'))).map((e) => e.outerHTML.slice(0, 100))""")
        self.assertEqual(unnamed, [], "without a name")

    def test_fits_a_narrow_screen(self):
        self.mock.state["recent"] = [recent(1)]
        self.browser.resize(360, 700)
        self.browser.wait("getComputedStyle(document.querySelector('.monitor')).display === 'none'")
        self.browser.run("document.getElementById('switch-view').click()")
        self.browser.wait("document.querySelector('.timeline')")
        wide = self.browser.run("[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > 361).map((e) => e.outerHTML.slice(0, 80))")
        self.assertEqual(wide, [])
        self.picture("narrow.png")


@unittest.skipUnless(PROGRAM, "no program was given")
class Demo(PageTest):
    """`runahead serve` on the demo model."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        cls.address = f"http://127.0.0.1:{port}"
        cls.log = tempfile.TemporaryFile()
        cls.addClassCleanup(cls.log.close)
        cls.server = subprocess.Popen([PROGRAM, "serve", "--model", str(ROOT / "models/demo"), "--devices", "cpu:2", "--port", str(port)], stderr=cls.log)
        cls.addClassCleanup(cls.stop)
        until = time.monotonic() + 60
        while True:
            try:
                return urllib.request.urlopen(f"{cls.address}/ready", timeout=5).close()
            except OSError as error:
                if cls.server.poll() is not None or time.monotonic() > until:
                    cls.log.seek(0)
                    raise RuntimeError(f"serve: {error}: {cls.log.read().decode()}") from error
                time.sleep(0.05)

    @classmethod
    def stop(cls):
        cls.server.terminate()
        cls.server.wait(timeout=60)

    def state(self):
        with urllib.request.urlopen(f"{self.address}/runahead/state", timeout=10) as answer:
            return json.load(answer)

    def setUp(self):
        self.open(self.address)
        self.browser.wait("document.getElementById('health-text').textContent === 'ready'")

    def test_a_newcomer_asks_about_the_sample(self):
        self.assertEqual(self.text("#model"), "demo")
        self.browser.run("document.getElementById('load-sample').click()")
        self.browser.wait("document.getElementById('message').value !== ''")
        self.browser.key("Enter")
        self.browser.wait(f"{ANSWERED} === 1", seconds=60)
        self.assertEqual(self.text(".answer .text"), "Hull.")
        self.assertIn("Without a chat template", self.text("#form-note"))
        self.assertRegex(self.text(".answer .facts"), r"first token after [\d.]+ m?s.* 6,\d\d\d prompt tokens.* read by 2 ranks")
        self.browser.wait("document.querySelectorAll('#recent .timeline g').length === 2")
        said = self.browser.run("fetch('/runahead/state').then((r) => r.json()).then((s) => s.recent[0])")
        if predicted := re.search(r"predicted ([\d.]+) (m?s)", self.text(".answer .facts")):  # none where nothing was measured
            self.assertGreater(float(predicted[1]) * (1 if predicted[2] == "ms" else 1000), said["ttft_ms"] / 20)
        self.check_timeline(said)
        self.browser.run("document.querySelector('#suggestions button').click()")
        self.browser.wait(f"{ANSWERED} === 2", seconds=60)
        self.assertEqual(self.text(".answer:last-child .text"), "honey.")
        kept = re.search(r"([\d,]+) of them cached", self.text(".answer:last-child .facts"))
        self.assertGreater(int(kept[1].replace(",", "")), 5500, "tokens whose rows were there")
        self.browser.wait("document.querySelectorAll('#recent > li').length === 2")
        self.browser.run("for (const summary of document.querySelectorAll('#recent > li > details > summary')) summary.click()")
        self.browser.wait("document.querySelectorAll('#recent > li:last-child details[open] .timeline g').length === 2")
        self.picture("demo.png")

    def check_timeline(self, phase):
        """What the picture says is what the state says: chunks are those of the cuts, and no event lies outside of the prompt phase."""
        tokens = self.browser.run("[...document.querySelectorAll('.numbers tbody tr')].map((r) => Number(r.cells[1].textContent.replace(',', '')))")
        chunks = {rank: end - begin for rank, begin, end in zip(phase["members"], phase["cuts"], phase["cuts"][1:])}
        self.assertEqual(dict(enumerate(tokens)), chunks)
        self.assertLessEqual(phase["cached_tokens"] + sum(tokens), phase["prompt_tokens"])
        self.assertEqual({event["rank"] for event in phase["timeline"]}, set(phase["members"]))
        for event in phase["timeline"]:
            self.assertLessEqual(event["begin_ms"], event["end_ms"])
            self.assertLessEqual(event["end_ms"], phase["ttft_ms"] + 1)

    def test_stops_reading(self):
        cancelled = self.state()["totals"]["cancelled"]
        self.say(f"{time.time()} " + "The keeper of the harbour wrote this down. " * 300)
        self.browser.wait("!document.getElementById('stop').hidden")
        self.browser.key("Escape")
        self.browser.wait("!document.getElementById('send').hidden")
        until = time.monotonic() + 20
        while self.state()["totals"]["cancelled"] == cancelled:
            self.assertLess(time.monotonic(), until, "the request was not cancelled")
            time.sleep(0.05)

    def test_says_that_a_prompt_is_too_long(self):
        self.say("word " * 9000)
        self.browser.wait("document.querySelector('.notice')", seconds=60)
        self.assertIn("8192", self.text(".notice"))
        self.assertEqual(self.browser.run("fetch('/page/nothing.js').then((r) => r.status)"), 404)


if __name__ == "__main__":
    if not find_chromium():
        print("no Chromium is installed")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
