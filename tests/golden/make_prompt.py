"""Freezes AUTOMATIC1111's prompt language: emphasis, schedules, AND, chunks of 75 tokens, and emphasised text states.

    python make_prompt.py WEBUI_CHECKOUT [tinysd.safetensors]

prompt.json: `attention` [text, [[fragment, weight]...]] (null where A1111 raises); `schedule` [text, steps, [[end step, text]...]];
`multicond` [text, [[sub-prompt, weight]...]]; `chunks` [text, token count, [[77 ids], ...], [[77 weights], ...]] with the default
comma backtrack of 20.  emphasis.safetensors: `<n>.<mode>` text states [1,77*k,64] on tinysd; metadata `prompts`; `<n>.skip2`
is mode Original with clip skip 2.
"""
import sys

import torch
from oracle import TINYSD, arg, load, save, save_json, tokenizer, versions

import webui

shared, opts = webui.setup(sys.argv[1])
ATTENTION = ["", "normal text", "an (important) word", "(unbalanced", "\\(literal\\]", "(unnecessary)(parens)", "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
             "(a:1.2)", "(a: 1.2 )", "(a:+1.2)", "(a:-1)", "(a:.5)", "(a:1.)", "(a:1.2.3)", "(a:.)", "(a:1.2", "a:1.2)", "(a:b:1.2)", "(a:1.2b)", "(a:1e1)", "[a]", "[[a]]",
             "[a:1.2]", "[a:b:0.5]", "((a)", "(a))", "[a", "a]", ")a(", "][", "()", "(())", "[]", "(:1.2)", ":1.2)", ":", "::", "a:b", "\\", "a\\b", "\\\\", "a\\\\(b)", "\\((a)\\)",
             "\\:", "a BREAK b", "a BREAK BREAK b", "BREAK", "BREAKfast", "aBREAK b", "a\nBREAK\nb", "(a BREAK b:1.2)", "(a BREAK b)", "break", "(a, (b:1.1), c:0.9)", "(a:0)",
             "a (b) (c) d", "(a)(b:1.1)", "(é猫:1.3)", "<lora:x:0.5> (a)", "hatsune_miku_\\(vocaloid\\), (solo:1.1)", "(a:1.1)b(c:1.1)", "((a:1.1):1.1)", "[(a)]", "([a])", "(a\nb:1.4)"]
SCHEDULE = ["test", "a [b:3]", "a [b: 3]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e", "a [unbalanced", "a [b:.5] c", "((a][:b:c [d:3]",
            "[a|(b:1.1)]", "[fe|]male", "[fe|||]male", "[a:b:0]", "[a:b:1.0]", "[a:b:-1]", "[a:b:100]", "[a::0.5]", "[:b:0.5]", "[a|b|c] x", "[a:b:1e1]", "a [b|c:d:0.5]",
            "[a [b:c:2]|d]", "(a [b:c:0.5]:1.2)", "[a:b]", "[a:b:]", "\\[a:b:0.5\\]", "[red\\:blue:green:0.5]", "[a:b:0.25][c:d:0.75]", "a [b:c:.333] d", "[a:b:5", "a:b:5]", ""]
MULTI = ["a", "a AND b", "a :1.5 AND b:-0.5", "a:2 AND b : .5 AND c: 1.", "aANDb", "AND", "a AND", "a and b", "(a AND b:1.2)", "a AND [b:c:0.5]:2", "a:b AND c"]
TAGS = "1girl, solo, long hair, blue eyes, looking at viewer, smile, red dress, white background, standing, holding umbrella, rain, "
CHUNKS = ["", "cat", "red apple, fruit", "a, " * 37, "a, " * 38, ", ".join(["a"] * 40), "a " * 75, "a " * 76, "a " * 150, "a " * 151, TAGS * 3, TAGS * 6, "(" + TAGS * 3 + ":1.2)",
          "a " * 60 + ", " + "b " * 20, "a " * 54 + ", " + "b " * 21, "a " * 53 + ", " + "b " * 22, "a " * 74 + ", b", "a " * 75 + ", b", "a BREAK b", "BREAK", "a BREAK BREAK b",
          "a " * 75 + "BREAK b", "a " * 70 + "(supercalifragilisticexpialidocious:1.3), x", "a " * 70 + ", (b c d e:1.3) [f g h]", "x, " * 30 + "y " * 30, "ab(cd)ef", "(a BREAK b:1.2)"]
STATES = ["(red apple:1.4), fruit", "[penguin], ((bird)), (smiling face with sunglasses:0.7)", TAGS * 3 + "(red apple:1.5)"]


def main():
    from modules import prompt_parser as pp
    attention = []
    for text in ATTENTION:
        try:
            attention.append([text, pp.parse_prompt_attention(text)])
        except ValueError:
            attention.append([text, None])
    schedule = [[t, s, pp.get_learned_conditioning_prompt_schedules([t], s)[0]] for t in SCHEDULE for s in ((10, 20) if "[" in t else (10,))]
    multi = []
    for text in MULTI:
        indexes, flat, _ = pp.get_multicond_prompt_list(pp.SdConditioning([text]))
        multi.append([text, [[flat[i], w] for i, w in indexes[0]]])
    _, _, te = load(arg(2, TINYSD))
    embed, chunks, out = webui.embedder(tokenizer(), te), [], {}
    for text in CHUNKS:
        got, count = embed.tokenize_line(text)
        chunks.append([text, count, [c.tokens for c in got], [c.multipliers for c in got]])
    save_json("prompt.json", {"oracle": "AUTOMATIC1111 v1.10.1 (82a973c), " + versions("transformers"), "attention": attention, "schedule": schedule,
                              "multicond": multi, "chunks": chunks})
    with torch.no_grad():
        for n, text in enumerate(STATES):
            for mode in ("Original", "No norm", "Ignore", "None"):
                opts.emphasis = mode
                out[f"{n}.{mode}"] = embed.forward([text])
            opts.emphasis, opts.CLIP_stop_at_last_layers = "Original", 2
            out[f"{n}.skip2"] = embed.forward([text])
            opts.CLIP_stop_at_last_layers = 1
    save("emphasis.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("transformers"), prompts=STATES)
    print(len(attention), "attention,", len(schedule), "schedules,", len(chunks), "chunk cases;", {k: list(v.shape) for k, v in out.items() if "Orig" in k})


if __name__ == "__main__":
    main()
