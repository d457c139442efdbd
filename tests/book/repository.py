#!/usr/bin/env python3
"""A preprocessor of mdBook: turns links that leave docs/ into links to the repository."""

import json
import posixpath
import re
import sys

REPOSITORY = "https://github.com/scion-tracker/scion-tracker/blob/main/"
# As in [text](../README.md#part). Not in {{#include}}.
LINK = re.compile(r"(\]\()(\.\./[^)\s]*)(\))")


def rewrite(section):
    chapter = section.get("Chapter") if isinstance(section, dict) else None
    if not chapter:
        return
    folder = posixpath.dirname(chapter["path"] or "")

    def absolute(link):
        target = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        inside = posixpath.relpath(target, "docs") if target.startswith("docs/") else None
        return f"{link[1]}{inside or REPOSITORY + target}{link[3]}"

    chapter["content"] = LINK.sub(absolute, chapter["content"])
    for item in chapter["sub_items"]:
        rewrite(item)


if len(sys.argv) > 1 and sys.argv[1] == "supports":
    sys.exit(0)
_, book = json.load(sys.stdin)
for part in book.get("items") or book.get("sections") or []:
    rewrite(part)
json.dump(book, sys.stdout)
