"""Freezes how AUTOMATIC1111 reads a prompt as a program: editing, alternation, AND, comments, styles, tags.

    python make_script.py WEBUI_CHECKOUT

script.json: `schedule` [text, steps, hires steps or null, old scheduling, [[end step, text]...]]; `multicond` [text, [[sub-prompt,
weight]...]]; `comments` [text, without]; `styles` a CSV file's text, `style_rows` [[name, prompt, negative]...] as A1111 reads it,
`merge` [[names], prompt, negative, prompt with styles, negative with styles], `extract` [prompt, negative, [names], prompt, negative];
`tags` [text, without tags, [[kind, [items]...]]].  Most texts of `schedule` are written by hand, the rest are drawn from pieces of
the grammar; texts on which the parser or float() fails otherwise than by giving up are left out.
"""
import importlib.util
import io
import random
import sys
import tempfile
import types
from unittest.mock import MagicMock

from oracle import save_json, versions

HAND = """test
a [b:3]
a [b: 3]
a [[[b]]:2]
[(a:2):3]
a [b : c : 1] d
a[b:[c:d:2]:1]e
a [unbalanced
a [b:.5] c
a [{b|d{:.5] c
((a][:b:c [d:3]
[a|(b:1.1)]
[fe|]male
[fe|||]male
a [b:1.5] c
[a:b:0]
[a:b:1]
[a:b:1.0]
[a:b:-1]
[a:b:-0.5]
[a:b:100]
[a:b:9.99]
[a:b:+3]
[a:b:5.]
[a:b:.25e1]
[a:b:1e1]
[a:b:2E0]
[a:b:1e-1]
[a:b:25e-2]
[a:b:1e]
[a:b:e1]
[a:b:1.2.3]
[a:b:--1]
[a:b:0x3]
[a:b:3 ]
[a:b:\t3\t]
[a:b:\n3]
[a:b:\u30003]
[a:b:\u00a00.5]
[a:b: ]
[a:b:]
[a:b]
[a:]
[:]
[]
[:b:3]
[a::3]
[::3]
[:3]
[3:4]
[a:1:2]
[a:1:2:3]
[a:b:c:0.5]
[a:b:c]
[a|b]
[a|b|c] x
[|a]
[|]
[||]
[a||b]
a | b
(a|b)
(a|b) [c:d:3]
[a|b] | c
[a|b:3]
[a:b|c:3]
[a:[b|c]:3]
[[a:b:3]|c]
[[a|b]|c]
[[a|b]|[c|d|e]]
[a|[b:c:0.5]]
[a [b:c:2]|d]
(a [b:c:0.5]:1.2)
(a:b:1.2)
(a:b:c)
([a:b:3])
([a:b:3]
[a:b:3])
[a:(b:c:3]
[a:(b):3]
[(a:b:3]
[a:b):3]
[a (b] c)
[a (b] c [d:e:3])
[x:(a:b:3):0.5]
[[a:b]:c:3]
[[a:b:c]:d:3]
[[a:b:0.5]:c:3]
[[a:b:0.25]:c:0.5]
[a:[b:[c:d:0.75]:0.5]:0.25]
[a:[b:[c:d:0.25]:0.5]:0.75]
[a:b:0.25][c:d:0.75]
[a:b:0.25] [c:d:0.25]
[a:b:.333] [c:d:.334]
a [b|c:d:0.5]
\\[a:b:0.5\\]
[red\\:blue:green:0.5]
[a\\|b|c]
[a\\]:b:3]
[a:b\\:3]
[a:b:3\\]
\\
a\\
a [b:3]\\
a\\\nb [c:3]
a\\b [c:3]
\\\\[a:b:3]
\\\\\\[a:b:3]
\\é [a:b:3]
[é:猫:3]
[😀|🎉]
[a:b:3
a:b:3]
[a:b:3]]
[[a:b:3]
]]]][[[[
:::
(:)
(::)
[(:):3]
[(a:):3]
[a (b:1.2) c:d:0.5]
[(a:1.2):(b:0.8):0.5]
[[a]:b:3]
[[[a]]|b]
[a:b:3]:4]
[a:b:3] : c
a AND [b:c:0.5]
[a AND b:3]
<lora:x:1> [a:b:3]
[<lora:x:1>:3]
[cow|horse] in a field
[cow|cow|horse|man|siberian tiger|ox|man] in a field
a [fantasy:cyberpunk:16] landscape
[mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]
a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).
masterpiece, best quality, 1girl, (blue hair:1.2), [long hair:short hair:0.4], looking at viewer
1girl, [[black|white] dress:naked:12], [smile], \\(series\\)
[from:to:when]
[a:b:0.5]BREAK[c:d:0.5]
a [b:c:0.5] BREAK d [e|f]
  [ a : b : 0.5 ]  
[a\n:b\n:0.5]
[ a | b ]
[a|b]c[d|e|f]
[male:female:0.0], detailed face
[::0.5]
[[::0.5]:a:0.75]
[[:a:0.2]|[b::0.2]]
[a:b:0.5:c]
[a:b:0,5]
[a:b:½]
[a:b:٣]
[1:2:3]
[1|2:3]
[1:[2:3:4]:5]
[.:.:.]
[-:-:-1]
[a:b:1_0]
[a:b:inf]
[a:b:nan]
[a:b:1e400]
[a:b:-1e400]
[a:b:0.1][a:b:0.2][a:b:0.3][a:b:0.4][a:b:0.5]""".split("\n")
PIECES = ["a", "b ", " c", "[", "]", "(", ")", ":", "|", "3", "0.5", "[x:y:", "[x:", ":2]", ":.5]", " : 4 ]", "\\", "\\(", "\\[", " ", "\n", "é", "猫", "1.2", "[d|e", "|f]", "(g:1.1)", "[h]"]
MULTI = ["a", "a AND b", "a :1.5 AND b:-0.5", "a:2 AND b : .5 AND c: 1.", "aANDb", "AND", "a AND", "AND a", "a and b", "(a AND b:1.2)", "a AND [b:c:0.5]:2", "a:b AND c", "a:1.5",
         "a:1:2", "a: 1 : 2 ", "(a:1.2", "(a:1.2)", "a :+.5", "a:-", "a:.", "a:1.2.3", "a:1e1", ":2", " a \n AND \n b ", "a AND b AND a:2", "a,AND,b", "猫AND犬", "猫，AND，犬", "a_AND b",
         "a AND\u3000b:\u30002", "a\n:2\n", "AND AND", "a AND b :0", "é AND 2AND", "[a AND b:0.5]:3", "a:2 BREAK b"]
COMMENTS = ["", "a", "# a", "a # b", "a\n# b\nc", "# a\n# b\nc", "a #b\nc #d", "#", "a\n#", "#\n#\n#", "a\n\n# b\n\nc", "a\n # b\nc", "\n#a", "a#", "##", "c#, d", "a\r\n# b\r\nc", "x\n#a\n#b\n#c\ny", "a # b # c\nd"]
CSV = ("\ufeffname,prompt,negative_prompt\nplain,masterpiece,lowres\nwrap,\"photo of {prompt}, 85mm\",\"{prompt}, bad\"\nempty,,\n\"with, comma\",\"says \"\"hi\"\", ok\",\"a\nb\"\n"
       "\n# comment,x,y\nplain2, spaced , out \nplain,better,worse\ntwice,{prompt} and {prompt},\nshort\nlong,a,b,c,d\nhalf\"quote,\"a\"b,'c'\n猫,{prompt}猫,犬\n").replace("\n", "\r\n")
MERGE = [([], "a", "b"), (["plain"], "a", "b"), (["plain"], "", ""), (["wrap"], " a ", " b "), (["empty"], "a", "b"), (["plain", "wrap"], "a", "b"), (["wrap", "plain"], "a", "b"),
         (["twice", "twice"], "a", ""), (["with, comma"], "a", "b"), (["plain2"], "  a  ", "b"), (["猫", "half\"quote"], "a", "b"), (["long"], "\n a,", "\u3000b")]
EXTRACT = [("a, better", "b, worse"), ("photo of a, 85mm", "b, bad"), ("a", "b"), ("photo of a, 85mm, better", "b, bad, worse"), ("better", "worse"), ("a and a", "b"), ("a猫", "犬"), ("a, says \"hi\", ok", "b, a\nb"),
           ("photo of photo of a, 85mm, 85mm", "b, bad, bad")]
TAGS = ["a, <lora:x:1>, b", "<lora:x>", "<lora:x:0.5:0.25>", "<lyco:x:te=0.5:unet=1:dyn=8>", "<foo:bar>x", "<lora:>", "<lora:x", "<:x>", "< lora:x>", "a < b > c", "<3 <lora:x:2>", "<lora:a<lora:b>>", "<löra:x:1>",
        "<lora:x:1:lbw=1,0,0.5>", "<lora:x y:1>", "<lora:x\ny:1>", "<lora:x:>", "<lora::1>", "<hypernet:h:0.3>", "<a:b><a:c>", "<a-b:c>", "<a_b:c>", "<1:2>"]


def module(checkout, name, rest, **globals_):
    spec = importlib.util.spec_from_file_location(name, f"{checkout}/{rest}")
    made = importlib.util.module_from_spec(spec)
    vars(made).update(globals_)
    spec.loader.exec_module(made)
    return made


def drawn(count):
    rng = random.Random(5)
    return ["".join(rng.choice(PIECES) for _ in range(rng.randint(2, 14))) for _ in range(count)]


def schedules(pp, texts):
    ways = [(10, None, False), (20, None, False), (10, None, True), (20, 8, False), (7, 30, False), (10, 5, True)]
    out = []
    for i, text in enumerate(texts):
        for k, (steps, hires, old) in enumerate(ways):
            if k and (i + k) % 3 and i >= 40:
                continue
            try:
                got = pp.get_learned_conditioning_prompt_schedules([text], steps, hires, old)[0]
            except (ValueError, OverflowError, RecursionError):
                continue
            out.append([text, steps, hires, old, got])
    return out


def main():
    checkout = sys.argv[1]
    for name in ("modules", "modules.scripts", "modules.shared", "modules.script_callbacks", "modules.errors"):
        sys.modules[name] = MagicMock()
    sys.modules["modules.scripts"].Script = sys.modules["modules"].scripts.Script = object
    pp = module(checkout, "prompt_parser", "modules/prompt_parser.py")
    sys.modules["modules"].prompt_parser = types.SimpleNamespace()
    comments = module(checkout, "comments", "modules/processing_scripts/comments.py")
    styles = module(checkout, "styles", "modules/styles.py")
    extra = module(checkout, "extra_networks", "modules/extra_networks.py")
    multi = []
    for text in MULTI:
        indexes, flat, _ = pp.get_multicond_prompt_list(pp.SdConditioning([text]))
        multi.append([text, [[flat[i], w] for i, w in indexes[0]]])
    with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="", encoding="utf-8") as f:
        f.write(CSV)
        f.flush()
        base = styles.StyleDatabase([f.name])
    rows = [[s.name, s.prompt, s.negative_prompt] for s in base.styles.values()]
    merge = [[n, p, q, base.apply_styles_to_prompt(p, n), base.apply_negative_styles_to_prompt(q, n)] for n, p, q in MERGE]
    known = {k: v for k, v in base.styles.items() if v.prompt is not None and v.negative_prompt is not None}
    base.styles = known
    extract = []
    for p, q in EXTRACT:
        names, got, neg = base.extract_styles_from_prompt(p, q)
        extract.append([p, q, names, got, neg])
    tags = []
    for text in TAGS:
        rest, found = extra.parse_prompt(text)
        tags.append([text, rest, [[kind, x.items] for kind, list_ in found.items() for x in list_]])
    data = {"oracle": "AUTOMATIC1111 v1.10.1 (82a973c), " + versions("lark"), "schedule": schedules(pp, HAND + drawn(260)), "multicond": multi,
            "comments": [[t, comments.strip_comments(t)] for t in COMMENTS], "styles": CSV, "style_rows": rows, "merge": merge, "extract": extract, "tags": tags}
    save_json("script.json", data)
    print({k: len(v) for k, v in data.items()}, io.StringIO().getvalue())


if __name__ == "__main__":
    main()
