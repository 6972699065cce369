"""Freezes CLIP tokenisation: a few hundred strings and their ids (no start, end or padding).

    python make_tokens.py

The oracle is transformers' slow CLIPTokenizer with ftfy, built from the vocabulary inside open_clip_torch.  Each case is
[string, ids, what ftfy did to the string ("" where nothing; "encode ..., decode ..." is a repair of mojibake)].
"""
import random

import ftfy
from oracle import save_json, tokenizer, versions

WORDS = """red apple, fruit|penguin, bird|smiling face with sunglasses|grinning face with big eyes|face with tears of joy
mochi, grinning cat|flag: Côte d’Ivoire|flag: Curaçao|piñata, party|keycap: #|keycap: *|O button (blood type)|woman’s hat|man in tuxedo: medium-dark skin tone
1girl, solo, long_hair, blue_eyes, looking_at_viewer|masterpiece, best quality, (ultra-detailed:1.2)|1boy, 2girls, 6+girls|:d, ;), ^_^, >_<, =_=, o_o|hatsune_miku_(vocaloid)
fate/grand_order|re:zero_kara_hajimeru_isekai_seikatsu|no.6|.hack//|k-on!|steins;gate|idolm@ster|rating:safe|score_9, score_8_up|absurdres, highres|<lora:x:0.8>
worst quality, low quality:1.4|jpeg artifacts|8k uhd, dslr, f/1.8, iso 100|by greg rutkowski|art by artgerm and alphonse mucha|t-shirt|v-neck|x-ray|off-shoulder|e-girl
||  |   leading and trailing   |a|A|,|,,|, ,|, , ,|.|...|....|…|!|?!|!!!|????|!?!?!?|---|--|-|_|__|a_b_c|a__b|#|##|@|$|%|^|&|&&|*|**|+|++|=|==|/|//|\\|\\\\|:|;|'|"|`|~|<|>|<>|><|[]|()|{}|((((a))))|[[b]]
don't|DON'T|can't|won't|it's|IT'S|we'll|WE'LL|we'LL|I'm|I'M|they're|they've|he'd|'s|'t|'re|'ve|'m|'ll|'d|'S|'LL|''|'''|'x|'tis|rock'n'roll|o'clock|'sick|x's's|'s 's|'ss|'lla
0|1|12|123|2024|3.14|1,000,000|1e10|1st|2nd|3rd|4k|1920x1080|50%|$9.99|007|１２３|٣٤٥|½|²|x²|Ⅷ|⑨|一二三|㊗|10⁻³|3d|c3po|r2d2|a1b2c3|99999999999999999999
cat|Cat|CAT|cAT|cats|caterpillar|catdog|cat dog|cat  dog|cat,dog|cat.dog|cat-dog|cat_dog|(cat)|"cat"|cat!|cat?!|#cat|@cat|cat's|cats'|the cat sat on the mat
supercalifragilisticexpialidocious|pneumonoultramicroscopicsilicovolcanoconiosis|antidisestablishmentarianism|zzzzzzzzzzzzzzz|qwertyuiop|asdfghjkl|xkcd|aaaaaaaa|abababababab|hmmmmmmm
naïve café|Ünïcödé|crème brûlée|jalapeño|smörgåsbord|Łódź|Dvořák|Škoda|Çatalhöyük|São Paulo|ångström|Øresund|Ærø|œuvre|Œuvre|þorn|ðe|ß|STRASSE|Straße|straẞe|ẞ|İstanbul|ISTANBUL|ıstanbul|ΣΊΣΥΦΟΣ|ΟΔΟΣ|οδος|Σ|ΑΣ|ΑΣ Β|ς
cafe\u0301|e\u0301\u0301|n\u0303|a\u0308\u0323|\u0301|o\u0328\u0301|Z\u0351\u036b\u0343\u036a|क्षि|हिन्दी|தமிழ்|ไทย|ภาษาไทย|עברית|שָׁלוֹם|العربية|مَرْحَبًا|ქართული|հայերեն|አማርኛ|ᏣᎳᎩ|монгол|Русский|ПРИВЕТ|привет, мир|їжак|ўзбек|қазақ
猫|黒猫|かわいい猫|ネコ|ﾈｺ|少女，长发|初音ミク|東京タワー|한국어|고양이|안녕하세요|貓，狗|，|。|、|「猫」|『』|・|ー|〜|々|㍿|㌔|ﬁ|ﬂ|ﬀ|oﬃce|ﬁre|ﬆ|Ǆ|ǅ|ĳ|ŉ|ſ|ſt
ＡＢＣ|ａｂｃ|ｃａｔ|！|（ａ）|＃|Ｃａｔ　ｄｏｇ|😀|😀😀|👍🏽|👨‍👩‍👧‍👦|🏳️‍🌈|🇩🇪|☺️|☺|❤️|❤|a😀b|🥰cat|★|☆|♥|♪|→|←→|∞|≠|≤|√2|π|∑|∂x|°C|100°|©|®|™|№|§|¶|†|•|· · ·|€5|£|¥100|₿
“quoted”|‘single’|it’s|IT’S|don’t|‚low‘|„German“|«guillemets»|‹a›|–|—|a–b|a—b|‐|‑|a‑b|−5|×|3×3|÷|″|5′11″|ʼ|ʻokina|Hawaiʻi|`a´|＇|＂q＂
&amp;|&lt;b&gt;|&quot;|&#39;|&eacute;|&amp;amp;|a &amp; b|&nbsp;|AT&T|&copy|&hearts;|&#128512;|<b>bold</b>|<br/>|1 < 2 > 0|a&lt;b
<|startoftext|>|<|endoftext|>|a <|endoftext|> b|a<|endoftext|>b|<|ENDOFTEXT|>|<|endoftext|><|endoftext|>|<|endoftext|<|endoftext|>|<|pad|>|</w>|cat</w>|a</w>b
schÃ¶n|â€œquotedâ€\x9d|itâ€™s|Ã©|Â£5|rÃ©sumÃ©|ð\x9f\x98\x80|l’humanitÃ©|Ã|€\x99|voilÃ  le|Ð¿Ñ€Ð¸Ð²ÐµÑ‚|MÃ¼nchen, â€” dash"""
EXTRA = ["\t", "\n", "a\tb", "a\nb", "a\r\nb", "a\rb", "a\u00a0b", "a\u2003b", "a\u3000b", "a\u200bb", "a\u200db", "a\ufeffb", "\ufeffa", "a\u2028b",
         "a\u2029b", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1fb", "a\x85b", "a\u1680b", "a\u180eb", "a\u202fb", "a\u205fb", "a\u2060b", "a\x00b", "a\x01b",
         "a\x7fb", "a\x80b", "a\x9fb", "a\x1b[31mred\x1b[0m", "a\u00adb", "\u202eabc\u202c", "a\ufffdb", "\ue000", "\U0010ffff", "\U000e0041",
         "\u2066a\u2069", "a\ufe0fb", "\U0001d400\U0001d41b", "\U00020000", "x" * 300, "ab" * 150, "é" * 100, "a," * 60, "猫" * 80, "!" * 200, "1" * 90,
         "red | apple", "a|b", "||", "x \\(y\\)", "\\(literal\\]", "(a:1.2)", "[a:b:0.5]", "BREAK", "a BREAK b", "AND", "a,b , c ,d", "  a  ,  b  ",
         "tab\there, new\nline", "\u00c5\u212b", "\u2126 ohm", "K\u212a", "\u1e9e", "\u01c5", "\u0345", "I\u0307", "\u0130", "i\u0307", "\u03a3\u0301", "A\u03a3 ",
         "\uac00\u1100\u1161", "\u0958", "\ufb1d", "\u2f00", "\uff21\uff42", "\ua640", "\u0531", "\u10a0", "\u1c90", "\u13a0\uab70", "\U00010400", "\u24b6", "\u2160"]


def main():
    strings = [s for line in WORDS.split("\n") for s in (line.split("|") if "<|" not in line else line.split("> |"))] + EXTRA
    strings += ["<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "<|ENDOFTEXT|>", "<|endoftext|><|endoftext|>", "</w>", "cat</w>"]
    strings = [s.encode("utf-8").decode("unicode_escape") if "\\u" in s or "\\x" in s and s.isascii() else s for s in strings]
    rnd = random.Random(7)
    alphabet = list("abcdefghijklmnopqrstuvwxyzABC   ,,.'-_()0123456789!:;éßñ猫ねΣяИ’“😀\u0301\t")
    strings += ["".join(rnd.choice(alphabet) for _ in range(rnd.randint(3, 40))) for _ in range(60)]
    strings = list(dict.fromkeys(strings))
    tok = tokenizer()
    ids = [tok(s, add_special_tokens=False).input_ids for s in strings]
    steps = [", ".join(f"{e.action} {e.parameter}".removeprefix("apply ") for e in ftfy.fix_and_explain(s).explanation) for s in strings]
    save_json("tokens.json", {"oracle": versions("transformers", "ftfy") + " (slow CLIPTokenizer)", "cases": [list(c) for c in zip(strings, ids, steps)]})
    print(len(strings), "strings,", sum(map(bool, steps)), "changed by ftfy")


if __name__ == "__main__":
    main()
