"""Makes pages of the site from the notebooks beside this file: a hook of MkDocs, see mkdocs.yml.

A notebook is Markdown and code already, and is kept without outputs; so it takes no converter, and
nothing on the page is fetched from elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parent

RUN = """
## Run it

This page is `notebooks/{name}.ipynb`, without what it prints and draws:

```bash notest
pip install notebook
jupyter notebook notebooks/{name}.ipynb
```
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add ``notebooks/NAME.md`` for every notebook."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        name = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, name, content=page(path)))
    return files


def page(path: Path) -> str:
    """The notebook as Markdown, with links to other notebooks made links to their pages."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(map(_markdown, cells)) + "\n" + RUN.format(name=path.stem)


def _markdown(cell: dict[str, object]) -> str:
    lines = cell["source"]
    text = "".join(lines) if isinstance(lines, list) else str(lines)
    if cell["cell_type"] == "code":
        return f"```python\n{text}\n```"
    return text.replace(".ipynb)", ".md)")
