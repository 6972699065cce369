"""Freezes CLIP tokenisation: 10,000 strings and more, and their ids (no start, end or padding).

    python make_tokens.py

The oracle is transformers' slow CLIPTokenizer with ftfy, built from the vocabulary inside open_clip_torch.  The strings are
made here from word lists and from Python's table of Unicode 14, with a fixed seed.  A string is `mojibake` if ftfy's
fix_encoding changes its ids; its ids are then those with fix_encoding off, and `repaired` are those with it on.
"""
import random
import unicodedata

import ftfy
import torch
from oracle import save, tokenizer, versions

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
TAGS = """1girl 2girls 3boys 6+girls solo long_hair short_hair blue_eyes red_eyes heterochromia blonde_hair black_hair twintails ponytail ahoge bangs
looking_at_viewer upper_body full_body cowboy_shot from_above from_side dutch_angle smile open_mouth closed_eyes blush grin :d :3 ;) ^_^ >_< =_= o_o @_@ +_+ \\m/ \\o/ _|||_
school_uniform serafuku pleated_skirt t-shirt v-neck hair_ribbon hairband hat witch_hat beret cat_ears fox_tail animal_ears kemonomimi_mode thighhighs
black_footwear off-shoulder_dress see-through x-ray t-pose simple_background white_background outdoors night_sky starry_sky cherry_blossoms rain snow
hatsune_miku_(vocaloid) saber_(fate/stay_night) artoria_pendragon_(fate) 2b_(nier:automata) rem_(re:zero) c.c. k-on! steins;gate idolm@ster no.6 .hack//
fate/grand_order girls_und_panzer jojo_no_kimyou_na_bouken touhou nijisanji hololive_english blue_archive pokemon_(creature) yu-gi-oh! d.gray-man
masterpiece best_quality absurdres highres lowres bad_anatomy bad_hands jpeg_artifacts signature watermark score_9 score_8_up rating:safe rating_explicit source_anime
holding_sword gun rifle ak-47 m4_carbine katana wings halo horns mecha robot 1980s_(style) retro_artstyle monochrome greyscale sketch chibi comic 4koma speech_bubble
multiple_girls hug kiss hand_on_own_hip v peace_sign double_v paw_pose chopsticks ramen cake strawberry apple penguin cat dog dragon tail_raised year_2024""".split()
NOUNS = """apple penguin cat dog house tower mountain river woman man child portrait landscape city street robot dragon knight castle forest sea sky sunset
photograph painting sketch logo café jalapeño piñata fjord smörgåsbord naïveté dress armour kimono umbrella bicycle teapot violin lighthouse astronaut""".split()
ADJECTIVES = """red blue tiny gigantic old-fashioned photorealistic hyper-detailed moody cinematic ethereal rusty crystalline neon art-deco 8k ultra-wide
close-up hand-drawn low-poly 19th-century well-lit foggy wide-angle award-winning unreal baroque minimalist rococo""".split()
STYLES = """oil on canvas|by Greg Rutkowski|trending on ArtStation|studio lighting, f/1.8|35mm film|Kodak Portra 400|Unreal Engine 5|in the style of van Gogh
ukiyo-e|watercolour, pastel|golden hour|shot on iPhone|isometric|depth of field|ISO 100, 1/250 s|HDR|by Alphonse Mucha and H.R. Giger""".replace("\n", "|").split("|")
CONTRACTIONS = """don't can't won't it's we'll we've I'm you're he'd they'd've y'all 'tis 'twas rock'n'roll o'clock ma'am ne'er-do-well cat's cats' James's 's 't 're 've 'm 'll 'd
DON'T IT'S WE'LL I’M you’re it‘s she‛d that`s this´s d'Artagnan l'été qu'il O'Brien 90's '90s x'ss x'lls ''s 's's 'S 'T 'RE 'VE 'M 'LL 'D s' s'' '' 'ſ""".split()
ENTITIES = """amp lt gt quot apos nbsp copy reg trade hellip mdash ndash eacute Eacute EACUTE ntilde NTILDE szlig SZLIG auml AUML uuml oelig OELIG aelig AELIG hearts
spades alpha Alpha omega Omega infin ne le ge larr rarr frac12 frac14 times divide deg micro para sect laquo raquo lsquo rsquo ldquo rdquo bdquo euro pound yen cent sup2 fflig filig fjlig Tab
NewLine checkmark Jscr HilbertSpace NotEqualTilde CounterClockwiseContourIntegral nosuchname amp#65 x a1 zwj zwnj shy thinsp emsp lrm ThickSpace bne nvlt caps THORN ETH Zcaron Dot DDotrahd""".split()
NUMBERS = "#65 #x41 #X41 #0 #00065 #x1F600 #128512 #150 #133 #x80 #x9F #x81 #xD800 #xDFFF #x110000 #99999999999 #xFFFE #xFDD0 #11 #x7F #59 #x3b #x #xZZ # #1a #10 #13 #9 #160 #173 #8217 #x301 #x1F #38 #60 #62".split()
SPACES = [chr(c) for c in (0x20, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F, 0xA0, 0x1680, 0x180E, *range(0x2000, 0x200E), 0x2028, 0x2029,
                           0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF)]
SPACES += ["\r\n", "\n\n", "  ", "\n\r"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…–—“”‘’«»‹›¿¡·•§¶†‡™©®°±×÷−≤≥≠≈∞√∑∂←→↑↓★☆♥♪、。「」『』【】・〜ー！？（），．：；～")
EMOJI = list("😀😂🥰😎🤔👍👎👋🙏💩🔥✨🎉❤☺☠✌☝⚡☃♀♂🐱🐶🦊🍎🍕🚀🏳🏴👩👨🧑👧👦👶💻🎨🚒🦰🌈")
SEQUENCES = ["👩‍💻", "👨‍👩‍👧‍👦", "🧑‍🚒", "👩🏽‍🎨", "🏳️‍🌈", "🏴‍☠️", "❤️‍🔥", "👁️‍🗨️", "☺️", "☺︎", "#️⃣", "1️⃣", "*⃣", "👍🏻", "👋🏿", "✌🏽", "🦰", "🏴󠁧󠁢󠁷󠁬󠁳󠁿",
             "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🧑‍🤝‍🧑", "💑🏽", "🫱🏼‍🫲🏿"]
SYLLABLES = "an ba cri dra el fi gro hu ing jo ka lo mi ness ou pre qu re sta tion un vi wa xy yo ze able ment ph th sch str ough ism ology pseudo anti hyper counter".split()
ESCAPES = ["\x1b[0m", "\x1b[31m", "\x1b[1;32m", "\x1b[", "\x1b[31", "\x1b[;m", "\x1b[2J", "\x1b]0;t\x07", "\x1b(B", "\x1bM", "\x9b31m"]


def words():
    """The short list: each string was thought of by somebody."""
    out = [s for line in WORDS.split("\n") for s in (line.split("|") if "<|" not in line else line.split("> |"))] + EXTRA
    out += ["<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "<|ENDOFTEXT|>", "<|endoftext|><|endoftext|>", "</w>",
            "cat</w>"]
    return [s.encode("utf-8").decode("unicode_escape") if "\\u" in s or "\\x" in s and s.isascii() else s for s in out]


def tag_list(r):
    tags = r.sample(TAGS, r.randint(1, 14))
    how = r.randrange(6)
    if how == 1:
        tags = [t.replace("_", " ") for t in tags]
    elif how == 2:
        tags = [t.replace("_", " ").replace("(", "\\(").replace(")", "\\)") for t in tags]
    elif how == 3:
        tags = [t.title() if r.random() < .5 else t.upper() for t in tags]
    return r.choice([", ", ", ", ",", " ", " , ", ",, ", "\n"]).join(tags) + r.choice(["", "", ",", ", ", "."])


def caption(r):
    def thing():
        return f"{r.choice(['a', 'an', 'the', 'A', 'two', '3', 'some'])} {r.choice(ADJECTIVES)} {r.choice(NOUNS)}"
    text = thing() + r.choice([" standing near ", " and ", " with ", ", behind it ", " -- ", " — ", "; ", " in front of ", "'s "]) + thing()
    for _ in range(r.randrange(3)):
        text += ", " + r.choice(STYLES)
    return r.choice([text, text, text.capitalize(), text.upper(), text.title(), text + ".", text + "!!", "“" + text + "”", text.replace("'", "’")])


def emphasis(r):
    def part(depth):
        what = r.choice([r.choice(TAGS).replace("_", " "), r.choice(NOUNS), r.choice(STYLES)])
        if depth:
            what = part(depth - 1) + r.choice(["", ", "]) + what
        return r.choice([f"({what})", f"[{what}]", f"({what}:{r.choice(['1.2', '0.8', '1', '-1', '.5', ' 1.1 ', '1.05', '2e3'])})",
                         f"[{what}:{r.choice(NOUNS)}:0.{r.randint(1, 9)}]", what,
                         f"<lora:{r.choice(NOUNS)}:{r.random():.2f}>", f"{{{what}|{r.choice(NOUNS)}}}", f"__{r.choice(NOUNS)}__",
                         "(" * r.randint(1, 5) + what + ")" * r.randint(1, 5)])
    return r.choice([", ", " AND ", " BREAK ", " | "]).join(part(r.randrange(3)) for _ in range(r.randint(1, 4)))


def number(r):
    def one():
        n = r.randrange(10 ** r.randint(1, 12))
        return r.choice([str(n), f"{n:,}", f"{n / 100:.2f}", f"{n:e}", f"-{n}", f"+{n}", f"{n}%", f"${n}", f"€{n}", f"{n}px", f"{n % 9999}x{n % 777}",
                         hex(n), f"#{n & 0xFFFFFF:06x}", f"{n % 24}:{n % 60:02}",
                         f"{n % 31}/{n % 12}/{1900 + n % 140}", f"{n}th", f"{n}²", f"1/{n}", f"v{n % 10}.{n % 7}", f"{n}°C", f"№{n}", f"{n % 100}'s", f"a{n}b", f"f/{n % 22}"])
    return r.choice([" ", ", ", "", "-", "/"]).join(one() for _ in range(r.randint(1, 4)))


def contractions(r):
    return r.choice([" ", " ", ", ", ""]).join(r.choice(CONTRACTIONS + NOUNS) for _ in range(r.randint(1, 6)))


def entities(r):
    def one():
        name = r.choice(ENTITIES) if r.random() < .7 else r.choice(NUMBERS)
        return r.choice(["&", "&", "&", "&", "&amp;", "& "]) + name + r.choice([";", ";", ";", ";", "", " ;", ";;"])
    text = "".join(one() + r.choice(["", " ", "a", ", ", r.choice(NOUNS)]) for _ in range(r.randint(1, 4)))
    return text + (r.choice(["<b>", " < 3", "\n<i>&lt;", "</w>"]) if r.random() < .15 else "")


def punctuation(r):
    def one():
        return r.choice([r.choice(PUNCTUATION) * r.randint(1, 9), "".join(r.choices(PUNCTUATION, k=r.randint(2, 8))), r.choice(NOUNS),
                         str(r.randrange(99))])
    return r.choice(["", "", " "]).join(one() for _ in range(r.randint(1, 5)))


def spaces(r):
    return "".join(r.choice(SPACES) * r.choice([1, 1, 2]) + r.choice(["", r.choice(NOUNS), r.choice(TAGS), ",", "1"]) for _ in range(r.randint(1, 6)))


def controls(r):
    shaping = [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF0, 0xFFFE), 0xAD, 0x34F, 0x61C, 0x180B, 0xFE0F,
               0xE0001, 0xE0100]

    def one():
        return r.choice([chr(r.choice([*range(0x20), 0x7F])), r.choice(ESCAPES), chr(r.choice(shaping))])
    return "".join(r.choice(["", r.choice(NOUNS), r.choice("ab1,.")]) + one() for _ in range(r.randint(1, 5))) + r.choice(["", "z"])


def c1(r):
    """C1 controls, which are read as Windows-1252."""
    return "".join(r.choice(["", r.choice(NOUNS), " ", "é"]) + chr(r.randint(0x80, 0x9F)) for _ in range(r.randint(1, 3))) + r.choice(["", "s"])


def long_word(r):
    word = "".join(r.choices(SYLLABLES, k=r.randint(5, 40)))
    return r.choice([word, word.upper(), word.title(), r.choice("abcxyzéß猫") * r.randint(10, 120), "-".join(r.choices(SYLLABLES, k=12)),
                     "".join(r.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=64)),
                     "https://example.org/" + word[:20] + "?q=" + word[20:40] + "&x=1#top", r.choice(SYLLABLES) * r.randint(3, 25)])


def emoji(r):
    def one():
        how = r.randrange(6)
        if how == 0:
            return "".join(chr(0x1F1E6 + r.randrange(26)) for _ in range(r.randint(1, 4)))
        if how == 1:
            return "\u200d".join(r.choice(EMOJI) + r.choice(["", "\ufe0f", chr(0x1F3FB + r.randrange(5))]) for _ in range(r.randint(2, 4)))
        return r.choice([r.choice(SEQUENCES), r.choice(EMOJI), r.choice(NOUNS)])
    return r.choice(["", "", " "]).join(one() for _ in range(r.randint(1, 4)))


def marks(r):
    """Letters with marks, in an order that NFC changes."""
    combining = [*range(0x300, 0x370), *range(0x483, 0x488), *range(0x591, 0x5BE), *range(0x64B, 0x660), 0x93C, 0x94D, 0xE38, 0xE48, 0xFB1E, 0x1DC0,
                 0x20D0, 0x3099, 0x309A, 0x1D165]
    letters = "aeiouncszAEIOÅøæıİßΑΩΣαυωийеגבשקかハウ한가क"
    return "".join(r.choice(letters) + "".join(chr(r.choice(combining)) for _ in range(r.choice([0, 1, 1, 2, 3]))) for _ in range(r.randint(1, 6)))


def case(r):
    """Capitals of all scripts, sigmas at the ends of words."""
    bicameral = "ΑΒΓΔΣΣΣςσΩάΈΐΰΪДЖЩЪЯїЎԱՖႠႥᲐᲿᏣᏴꭰꮿⰀⰮⴀẞßſŉǅǈǋǲİıÅÇÉØÞÆŒŸỲⅠⅧⓐⒷĀĄǺꙀꞋᎠᲀάὈᾈᾳῼK℧Å"
    joints = ["", "", "", "'", "’", ".", ":", "·", "\u00ad", "\u0301", "\u0345", "ʰ", "^", "1", "-", " ", "ͺ"]
    return "".join(r.choice(bicameral + "AaZz") + r.choice(joints) for _ in range(r.randint(2, 10)))


def widths(r):
    return "".join(chr(r.choice([*range(0xFF01, 0xFFEF), *range(0xFF66, 0xFFA0), 0x3000, *range(0xFB00, 0xFB07), *range(0x132, 0x134),
                                 *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), 0x149, 0x17F, 0x41, 0x62, 0x20, *range(0xFE30, 0xFE50)]))
                   for _ in range(r.randint(1, 12)))


def mojibake(r):
    """UTF-8 read in a wrong encoding, whole or in part."""
    text = r.choice(["café", "naïve “quotes”", "it’s", "schön", "Straße", "привет", "日本", "😀", "l’été", "jalapeño — £5", "à la", "Ångström", "…"])
    wrong = text.encode().decode(r.choice(["cp1252", "latin-1", "cp1251", "mac_roman", "cp437", "cp1250"]), "replace")
    return r.choice(["", r.choice(NOUNS) + " ", "“ "]) + wrong + r.choice(["", " " + r.choice(NOUNS), ", é"])


def is_assigned(c):
    return unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")


def runs(step):
    """All of Unicode 14 but most ideographs and syllables, 14 neighbours to a string."""
    dense = [range(0xA1, 0x3400), range(0xA000, 0xAC00), range(0xD7A4, 0xD800), range(0xF900, 0xFFFE)]
    sparse = [(range(0x3400, 0xA000), 61), (range(0xAC00, 0xD7A4), 29), (range(0x10000, 0x20000), step), (range(0x20000, 0x110000), 211)]
    for block in dense:
        found = [c for c in block if is_assigned(c)]
        yield from ("".join(map(chr, found[i:i + 14])) for i in range(0, len(found), 14))
    for block, every in sparse:
        found = [c for c in block if is_assigned(c)][::every]
        yield from ("".join(map(chr, found[i:i + 10])) for i in range(0, len(found), 10))


def soup(r):
    """Code points from anywhere, between words or not."""
    def one():
        while True:
            c = r.randrange(r.choice([0x250, 0x800, 0x3100, 0x10000, 0x20000, 0x32000]))
            if is_assigned(c) and not 0x80 <= c < 0xA0:
                return chr(c)
    return "".join(r.choice(["", "", "", " ", r.choice(SYLLABLES), "1", ","]) + one() for _ in range(r.randint(1, 9)))


def sentence(r):
    """Words of one script: eight places of one block."""
    first = r.choice([0x100, 0x180, 0x250, 0x370, 0x400, 0x530, 0x5D0, 0x620, 0x710, 0x780, 0x900, 0x980, 0xA00, 0xA80, 0xB00, 0xB80, 0xC00, 0xC80,
                      0xD00, 0xD80, 0xE00, 0xE80, 0xF00, 0x1000, 0x10A0, 0x1200, 0x13A0,
                      0x1400, 0x1680, 0x16A0, 0x1700, 0x1780, 0x1820, 0x1950, 0x1E00, 0x1F00, 0x2C00, 0x2D30, 0x3040, 0x30A0, 0x3105, 0x4E00, 0x9F00, 0xA000, 0xA640, 0xA720, 0xAB70, 0xAC00, 0x10330, 0x10400, 0x118A0, 0x12000,
                      0x13000, 0x16800, 0x1D400, 0x1E900, 0x20000])
    block = [c for c in range(first, first + 0x60) if is_assigned(c)]
    return " ".join("".join(chr(r.choice(block)) for _ in range(r.randint(1, 7))) for _ in range(r.randint(1, 4))) + r.choice(["", ".", "!", ", ok"])


RECIPES = [(tag_list, 1200), (caption, 800), (emphasis, 750), (number, 400), (contractions, 400), (entities, 600), (punctuation, 500), (spaces, 300),
           (controls, 300), (c1, 60), (long_word, 150), (emoji, 400), (marks, 400),
           (case, 400), (widths, 200), (soup, 700), (sentence, 700), (mojibake, 60)]


def corpus():
    out = words() + list(runs(4))
    for recipe, count in RECIPES:
        rnd = random.Random(recipe.__name__)
        out += [recipe(rnd) for _ in range(count)]
    return [s for s in dict.fromkeys(out) if s]


def main():
    strings = corpus()
    tok = tokenizer()
    off = ftfy.TextFixerConfig(fix_encoding=False, explain=False)

    def encode(fix):
        tok.fix_text = fix
        return [tok(s, add_special_tokens=False).input_ids for s in strings]

    repaired, ids = encode(ftfy.fix_text), encode(lambda s: ftfy.fix_text(s, off))
    broken = [i for i, (a, b) in enumerate(zip(repaired, ids)) if a != b]
    lists = {"text": [s.encode() for s in strings], "ids": ids, "repaired": [repaired[i] for i in broken]}
    tensors = {"mojibake": torch.tensor(broken, dtype=torch.int32)}
    for name, items in lists.items():
        assert max(map(len, items)) < 65536
        # a list of lists is the bytes of all items, 16 bits each for ids, and how long each one is
        flat = [x for item in items for x in item]
        tensors[name] = torch.tensor(flat, dtype=torch.uint8) if name == "text" else halves(flat)
        tensors[name + ".length"] = halves([len(item) for item in items])
    save("tokens.safetensors", tensors, oracle=versions("transformers", "ftfy") + " (slow CLIPTokenizer)")
    print(len(strings), "strings,", len(broken), "of them mojibake")


def halves(values):
    """[n,2] U8, low byte first: 16 bits in a type that every reader has."""
    return torch.tensor([[v & 255, v >> 8] for v in values], dtype=torch.uint8).reshape(-1, 2)


if __name__ == "__main__":
    main()
