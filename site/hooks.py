"""Lets the pages of the site link to files outside of docs/, as they do in the repository.

A linked document becomes a page of the site, any other linked file a page with its text. Links are
written for the repository, so that they also work where nobody built the site.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
LANGUAGES = {".rs": "rust", ".toml": "toml", ".yaml": "yaml", ".sql": "sql", ".json": "json", ".proto": "protobuf"}


def place(path):
    """The page of a file of the repository, as a path in docs/."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md"


def origin(page):
    """The file of a page."""
    path = page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"
    if path.endswith(".md") and path.removesuffix(".md") and "." in Path(path.removesuffix(".md")).name:
        return path.removesuffix(".md")
    return path


def targets(path, text):
    """The files of the repository that a document links to."""
    for link in LINK.finditer(without_code(text)):
        if ":" not in link[2]:
            yield os.path.normpath(os.path.join(os.path.dirname(path), link[2]))


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def on_files(files, config):
    root = Path(config.config_file_path).parent.parent
    files.append(File.generated(config, "site.css", content=(root / "site/site.css").read_text()))
    known = {file.src_uri for file in files}
    open_ = [("docs/" + file.src_uri, root / "docs" / file.src_uri) for file in files.documentation_pages()]
    open_ += [(name, root / name) for name in ("CONTRIBUTING.md", "CHANGELOG.md")]
    for name, path in open_:  # it grows
        text = path.read_text()
        if name.endswith(".md") and place(name) not in known:
            files.append(File.generated(config, place(name), content=text))
            known.add(place(name))
        for target in targets(name, text) if name.endswith(".md") else ():
            if place(target) in known or target.startswith("docs/") or not (root / target).is_file():
                continue
            if target.endswith(".md"):
                open_.append((target, root / target))
                continue
            language = LANGUAGES.get(Path(target).suffix, "text")
            code = (root / target).read_text().replace("```", "` ` `")
            content = f"---\nsearch:\n  exclude: true\n---\n# `{target}`\n\n```{language}\n{code}\n```\n"
            files.append(File.generated(config, place(target), content=content))
            known.add(place(target))
    return files


def on_page_markdown(markdown, page, config, files):
    root = Path(config.config_file_path).parent.parent
    path = origin(page.file.src_uri)
    if not path.endswith(".md"):
        return markdown

    def rewritten(link):
        target = os.path.normpath(os.path.join(os.path.dirname(path), link[2]))
        if ":" in link[2] or not (root / target).is_file() or target.startswith("docs/images/"):
            return link[0]
        to = os.path.relpath(place(target), os.path.dirname(page.file.src_uri) or ".")
        return f"{link[1]}{to}{link[3] or ''}{link[4]}"

    # rustdoc's words after the language.
    return re.sub(r"^```rust,.*$", "```rust", LINK.sub(rewritten, markdown), flags=re.M)
