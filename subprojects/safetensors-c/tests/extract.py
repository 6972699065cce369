# SPDX-License-Identifier: MIT
"""Writes the first C program of a Markdown file: extract.py README.md out.c"""
import re
import sys

text = open(sys.argv[1], encoding="utf-8").read()
open(sys.argv[2], "w", encoding="utf-8").write(re.search(r"```c\n(.*?)```", text, re.S).group(1))
