"""Whether AUTOMATIC1111 reads the parameters that this library writes, from pictures of every format.

    SDLORA_LIBRARY=... PYTHONPATH=bindings/python python check_infotext.py WEBUI_CHECKOUT

Each text of infotext_corpus.py is put into a PNG, a JPEG and a WebP file; its images.read_info_from_image must give it back, and the
library too. Run by hand: it needs Pillow, piexif and the checkout.
"""
import os
import sys
import tempfile

from PIL import Image

import sdlora
from infotext_corpus import CORPUS
from make_containers import reader


def main():
    read, context, checked = reader(sys.argv[1]), sdlora.Context(), 0
    picture = sdlora.Image(context, memoryview(bytes(16 * 16 * 3)).cast("B", (16, 16, 3)))
    with tempfile.TemporaryDirectory() as folder:
        for text in CORPUS:
            text = text.replace("\r\n", "\n")  # texts of pictures have plain line ends
            for name, quality in (("a.png", 0), ("a.jpg", 90), ("a.webp", 80), ("b.webp", 101)):
                path = os.path.join(folder, name)
                picture.with_text(text).save(path, quality)
                with Image.open(path) as image:
                    image.load()
                    theirs = read(image)[0]
                ours = sdlora.Image.open(context, path).text
                assert theirs == text, (name, theirs, text)
                assert ours == text, (name, ours, text)
                checked += 1
    print(f"{checked} pictures of {len(CORPUS)} texts are read as they were written")


if __name__ == "__main__":
    main()
