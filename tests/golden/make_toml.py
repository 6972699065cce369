"""Freezes what Python's tomllib makes of TOML documents, and which it refuses.

    python make_toml.py

toml.json: `documents`, a list of {"text", "tree"}; tree is null for a document that is refused.  Dates and times are text as RFC 3339 has them.
"""
import datetime
import re
import sys
import tomllib

from oracle import save_json

GOOD = [
    "", "\n\n# only a comment\n", "a = 1", "a=1\r\nb=2\r\n", "\"quoted key\" = 1\n'lit' = 2\n\"\" = 3", "a.b.c = 1\na.b.d = 2", "a . b = 1", "3.14 = 'pi'",
    "i = [0, +1, -1, 1_000, 0xDEADbeef, 0o755, 0b1101, 9223372036854775807, -9223372036854775808]", "f = [1.0, -0.01, 5e+22, 1e06, -2E-2, 6.626e-34, 9_224.5, 0.0, -0.0]",
    "b = [true, false]", 's = "tab\\t quote\\" slash\\\\ u\\u00e9 U\\U0001F600"', "s = 'C:\\dir\\*.to_k'", 's = """\nline one\nline \\\n     two\\n"""', "s = '''\nraw \\n\n'''",
    's = """two "" quotes and five """""', "s = ''''that's it''''", "a = []", "a = [[1, 2], ['x', [true]]]", "a = [\n  1, # one\n  2,\n]", "a = [1, 'mixed', 2.5, {b = 1}]",
    "[t]\nx = 1\n[t.u]\ny = 2\n[v]\n", "[a.b.c]\nx=1\n[a]\ny=2", "[ a . \"b.c\" ]\nx = 1", "t = {}", "t = {x = 1, y.z = 'a', \"k k\" = [1]}", "[[p]]\nn = 1\n[[p]]\nn = 2\n[p.q]\nr = 3\n[[p.s]]\n[[p.s]]\nt = 1",
    "d = 1979-05-27", "t = 07:32:00", "t = 00:32:00.500000", "dt = 1979-05-27T07:32:00Z", "dt = 1979-05-27T00:32:00-07:00", "dt = 1979-05-27 07:32:00", "a = '\u00e9\u732b'",
    # presets as people write them
    'enable_conv = true\nunet_target_module = ["Transformer2DModel", "ResnetBlock2D"]\nunet_target_name = ["conv_in"]\ntext_encoder_target_module = []\n\n[module_algo_map]\n[module_algo_map.Attention]\n'
    'algo = "lokr"\nfactor = 8\n[module_algo_map.FeedForward]\nalgo = "lora"\ndim = 16\nalpha = 8.0\n[name_algo_map."time_embedding.linear_.*"]\nalgo = "full"\n',
    "[general]\nenable_bucket = true\n\n[[datasets]]\nresolution = 512\nbatch_size = 4\n\n  [[datasets.subsets]]\n  image_dir = 'C:\\hoge'\n  class_tokens = 'hoge girl'\n  num_repeats = 10\n",
    "\ttabs = 1 # and a comment with \u00fc\n   spaces   =   2   ", "a = 1 # no newline", "k-1_A = 0", "a = {b = {c = {d = [{}]}}}", "x = 1e308",
]
BAD = [
    "a", "a =", "= 1", "a = 1 b = 2", "a = 1\na = 2", "a = 1\na.b = 2", "[a]\n[a]", "[a\nb = 1", "[[a]]\n[a]", "a = [1, 2", "a = [1 2]", "a = {b = 1", "a = {b = 1,}", "a = {b = 1\n}", "a = {b=1, b=2}",
    "a = 'x", 'a = "x', 'a = """x', 'a = "\\q"', 'a = "\\ud800"', "a = 01", "a = 1__0", "a = _1", "a = 1.", "a = .5", "a = 0x", "a = +0xF", "a = True", "a = nope",
    "a = 1979-13-01", "a = 25:00:00", "a = \"x\ny\"", "a = 'x\ny'", "a.b = 1\n[a]\nc = 2", "a = {}\n[a.b]", "a = []\n[[a]]", "t = {a = 1}\nt.b = 2", "[]", "[a.]", "a..b = 1", "\x02", "a = '\x01'",
    "# bell \x07", "a = 1 \r b = 2", "a b = 1", "\u00e9 = 1", "[a] b = 1", "'''k''' = 1", "a = 1 ]",
]


def plain(v):
    if isinstance(v, dict):
        return {k: plain(x) for k, x in v.items()}
    if isinstance(v, list):
        return [plain(x) for x in v]
    if isinstance(v, (datetime.datetime, datetime.time)):
        return re.sub(r"(\.\d*[1-9])0+", r"\1", v.isoformat()).replace("+00:00", "Z")
    return v.isoformat() if isinstance(v, datetime.date) else v


def main():
    documents = [{"text": t, "tree": plain(tomllib.loads(t))} for t in GOOD]
    for t in BAD:
        try:
            raise SystemExit(f"{t!r} is {tomllib.loads(t)}")
        except tomllib.TOMLDecodeError:
            documents.append({"text": t, "tree": None})
    save_json("toml.json", {"oracle": "tomllib of Python " + sys.version.split()[0], "documents": documents})


if __name__ == "__main__":
    main()
