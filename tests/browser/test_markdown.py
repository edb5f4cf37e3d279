"""Markdown in the page: what is drawn, that nothing in it runs, and that growing changes nothing."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from tests.support.drawing import examples

IN_PARTS = """async parts => {
    const { Markdown } = await import("./markdown.js");
    const shown = new Markdown();
    let text = "";
    for (const part of parts) shown.update(text += part);
    return shown.root.cloneNode(true).innerHTML;
}"""


@pytest.fixture(scope="module")
def tab(browser: Browser, site: str) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(site)
    yield page
    page.close()


def in_parts(tab: Page, parts: list[str]) -> str:
    """
    What the page draws of a text that comes in *parts*.

    The clock stands still: on a busy machine any text may take longer than it is given.
    """
    frozen = f"""async parts => {{
        const real = performance.now;
        performance.now = () => 0;
        try {{
            return await ({IN_PARTS})(parts);
        }} finally {{
            performance.now = real;
        }}
    }}"""
    html: str = tab.evaluate(frozen, parts)
    return html


def drawn(tab: Page, text: str) -> str:
    """The elements that *text* becomes, without what makes them scroll and their classes."""
    html = in_parts(tab, [text]).removeprefix('<div class="part">').removesuffix("</div>")
    return re.sub(r' (?:tabindex|role|aria-label|scope|class|rel|target)="[^"]*"', "", html)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (
            "**b** _i_ ~~d~~ `c*`",
            "<p><strong>b</strong> <em>i</em> <del>d</del> <code>c*</code></p>",
        ),
        ("# Title\nText", "<h2>Title</h2><p>Text</p>"),
        ("one\ntwo", "<p>one<br>two</p>"),
        ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("2. a\n\n3. b", '<ol start="2"><li><p>a</p></li><li><p>b</p></li></ol>'),
        ("- [x] a\n- [ ] b", "<ul><li>☑ a</li><li>☐ b</li></ul>"),
        ("> a\n\nb", "<blockquote><p>a</p></blockquote><p>b</p>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("a\n--", "<p>a<br>--</p>"),
        (
            "| a | b |\n|---|---|\n| **1** | 2 |",
            (
                "<div><table><thead><tr><th>a</th><th>b</th></tr></thead>"
                "<tbody><tr><td><strong>1</strong></td><td>2</td></tr></tbody></table></div>"
            ),
        ),
        (
            "```py\na = 1\n\nb\n```\nafter",
            (
                "<section><header><span>py</span></header><pre><span>a = 1\n\nb\n</span></pre>"
                "</section><p>after</p>"
            ),
        ),
        ("```\nopen **b**", "<section><pre><span>open **b**</span></pre></section>"),
        ("[t](https://x.y/z)", '<p><a href="https://x.y/z">t</a></p>'),
        ("https://x.y", '<p><a href="https://x.y">https://x.y</a></p>'),
        ("an **unclosed", "<p>an **unclosed</p>"),
        (r"2 \* 3", "<p>2 * 3</p>"),
    ],
)
def test_what_is_drawn(tab: Page, text: str, html: str) -> None:
    assert drawn(tab, text) == html


HOSTILE = [
    "<script>document.title = 'hit'</script>",
    "<img src=x onerror=\"document.title = 'hit'\">",
    "a <b onclick=x>b</b> <!-- c -->",
    "<div>\n\n<iframe srcdoc=x></iframe>\n\n</div>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,x)",
    "[x](vbscript:x) [y](//elsewhere.example/y) [z](/local)",
    "<javascript:alert(1)>",
    "| <svg onload=x> |\n|---|\n| <style>*{}</style> |",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_html_and_foreign_schemes_are_text(tab: Page, text: str) -> None:
    html = in_parts(tab, [text])
    elements = set(re.findall(r"<(\w+)", html))
    assert elements <= {"p", "br", "div", "table", "thead", "tbody", "tr", "th", "td", "a"}
    assert "href" not in html
    shown = tab.evaluate(
        """html => new DOMParser().parseFromString(html, "text/html").body.textContent""", html
    )
    for piece in re.split(r"[\n|]|---", text):
        assert piece.strip() in shown


def test_links_lead_away_and_tell_nothing(tab: Page) -> None:
    html = in_parts(tab, ["[a](http://x.y) ![b](https://x.y/b.png) <me@x.y>"])
    links = re.findall(r"<a [^>]*>", html)
    assert len(links) == 3
    assert all('rel="noopener noreferrer"' in link and 'target="_blank"' in link for link in links)
    assert "<img" not in html


LAID_OUT = """async text => {
    const { Markdown } = await import("./markdown.js");
    const shown = new Markdown();
    document.querySelector("#messages").append(shown.root);
    shown.update(text);
    const { offsetHeight } = shown.root;
    const written = shown.root.textContent;
    shown.root.remove();
    return [offsetHeight, written];
}"""


@pytest.mark.parametrize("depth", [100, 1000, 3000, 9000])
@pytest.mark.parametrize("unit", ["> ", "*a ", "- ", "[", "`", "![](", "~~a **b "])
def test_no_depth_breaks_the_page(tab: Page, unit: str, depth: int) -> None:
    height, written = tab.evaluate(LAID_OUT, unit * depth + "end")
    assert height > 0
    assert "end" in written


DOCUMENT = """\
# A title

A paragraph with **bold**, `code`
and a second line.

- one
- two

  still two
- three 🧭

1. first
2. second

```python
def f():

    return "```"
```
Straight on after it. [link](https://example.org/a_b)

| a | b |
|---|--:|
| 1 | 2 |
| 3 | 4 |

> quoted
> more

~~~
tilde
~~~

    indented

    code

Last words, and a fence that stays open:
```
x = 1
"""


def test_segments_are_read_as_the_whole_would_be(tab: Page) -> None:
    as_one = """async text => {
        const { blocks } = await import("./markdown.js");
        const all = document.createElement("div");
        all.append(...blocks(text));
        return all.innerHTML;
    }"""
    assert in_parts(tab, [DOCUMENT]) == f'<div class="part">{tab.evaluate(as_one, DOCUMENT)}</div>'


def test_a_text_comes_out_the_same_wherever_it_is_split(tab: Page) -> None:
    whole = in_parts(tab, [DOCUMENT])
    assert in_parts(tab, list(DOCUMENT)) == whole
    for at in range(1, len(DOCUMENT)):
        assert in_parts(tab, [DOCUMENT[:at], DOCUMENT[at:]]) == whole


BLOCKS = ["# ", "##", "- ", "* ", "1. ", "2)", "-", "---", "> ", "    ", "```", "```js", "~~~", "|"]
LINES = ["\n", "\n\n", "\r\n", "| a | b |\n", "|---|---|\n"]
SPANS = ["**", "_", "~~", "`", "``", "[t](http://u)", "[", "](", "http://x.y", "\\", "&amp;", "<b>"]
WORDS = ["a", "word", "12", " ", "  ", "\t", "! ", "🧭"]
PIECES = st.sampled_from([*BLOCKS, *LINES, *SPANS, *WORDS])


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(pieces=st.lists(PIECES, max_size=40))
def test_any_text_comes_out_the_same_in_any_deltas(tab: Page, pieces: list[str]) -> None:
    text = "".join(pieces)
    whole = in_parts(tab, [text])
    assert in_parts(tab, pieces) == whole
    assert in_parts(tab, list(text)) == whole


@pytest.mark.parametrize("unit", ["word ", "- item\n", "| a | b |\n", "x = 1\n", "🧭"])
def test_a_block_without_an_end_is_cut_alike(tab: Page, unit: str) -> None:
    text = unit * (80_000 // len(unit))
    parts = [text[at : at + 777] for at in range(0, len(text), 777)]
    assert in_parts(tab, parts) == in_parts(tab, [text])


def test_what_is_settled_is_not_touched_again(tab: Page) -> None:
    touched: dict[str, Any] = tab.evaluate(
        """async ([document_, times]) => {
            const { Markdown } = await import("./markdown.js");
            const shown = new Markdown();
            let text = document_.repeat(times);
            shown.update(text);
            const settled = [...shown.root.children].slice(0, -2);
            const records = [];
            const watcher = new MutationObserver(seen => records.push(...seen));
            watcher.observe(shown.root, {childList: true, subtree: true, characterData: true});
            for (const c of document_) shown.update(text += c);
            records.push(...watcher.takeRecords());
            return {
                changes: records.length,
                settled: records.filter(r => settled.some(node => node.contains(r.target))).length,
                removed: records.flatMap(r => [...r.removedNodes]).filter(n => settled.includes(n)).length,
            };
        }""",
        [DOCUMENT.replace("```\nx = 1\n", "") + "\n", 20],
    )
    assert touched["changes"] > 100
    assert (touched["settled"], touched["removed"]) == (0, 0)


def test_a_text_that_is_replaced_starts_over(tab: Page) -> None:
    replaced = """async ([before, after]) => {
        const { Markdown } = await import("./markdown.js");
        const shown = new Markdown();
        shown.update(before);
        shown.update(after);
        return shown.root.innerHTML;
    }"""
    for before in (DOCUMENT, "```\nx", "short"):
        for after in ("", "other **text**", DOCUMENT[:200]):
            assert tab.evaluate(replaced, [before, after]) == in_parts(tab, [after])


SLOW = """async ([piece, segments]) => {
    const { Markdown } = await import("./markdown.js");
    const shown = new Markdown();
    const real = performance.now;
    let looks = 0;
    performance.now = () => ++looks; // a millisecond passes at each look
    try {
        let text = piece;
        const looksFor = [];
        const redraw = (more) => {
            const before = looks;
            shown.update(text += more);
            looksFor.push(looks - before);
        };
        redraw("");
        redraw("a");
        for (let i = 1; i < segments; i += 1) redraw("\\n\\n" + piece);
        redraw("a");
        return [looksFor, [...shown.root.querySelectorAll("p")].map(p => p.outerHTML), text];
    } finally {
        performance.now = real;
    }
}"""


def test_a_segment_that_cannot_be_read_in_time_is_plain_and_not_read_again(tab: Page) -> None:
    piece = "*a* " * 300
    looks, paragraphs, _ = tab.evaluate(SLOW, [piece, 5])
    assert paragraphs == [
        f'<p class="text">{piece}{end}</p>' for end in ("a\n\n", *["\n\n"] * 3, "a")
    ]
    first, again, *others, last = looks
    assert 200 <= first <= 210
    assert again == 0
    # The third one was the last that was tried; a settled one and the next are drawn together.
    assert sum(others) <= 2 * 210
    assert last == 0


def test_text_that_can_be_read_in_time_is_not_plain(tab: Page) -> None:
    _, paragraphs, _ = tab.evaluate(SLOW, ["*a* b", 1])
    assert paragraphs == ["<p><em>a</em> baa</p>"]


@pytest.mark.parametrize("unit", ["*__a", "_a*", "*a*_b"])
def test_what_takes_seconds_to_read_is_shown(tab: Page, unit: str) -> None:
    """Unbounded, 16 KB of these took 4 to 11 s, at each redraw."""
    text = unit * (64_000 // len(unit))
    parts = [text[at : at + 4000] for at in range(0, len(text), 4000)]
    assert tab.evaluate(IN_PARTS, parts).count('<p class="text">') > 1
