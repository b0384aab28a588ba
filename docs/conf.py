"""How Sphinx builds these pages; ``make docs`` builds and serves them. They are readable Markdown without it, too."""

from airflow_provider_regal import __version__

project = "airflow-provider-regal"
version = release = __version__
author = "the authors of airflow-provider-regal"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

# A link such as ledger.md#retention names a heading as GitHub does.
myst_heading_anchors = 4

autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__new__, __init__", "member-order": "bysource"}
autodoc_typehints = "none"  # the parameters are described in words
# What docstrings name and no page describes: Python's and Airflow's own, which are documented elsewhere.
nitpick_ignore_regex = [
    ("py:.*", r"(airflow|collections|datetime|pathlib|requests|typing)\..*"),
    ("py:exc", "(OS|Runtime|Timeout|Type|Value)Error"),
]

html_theme = "furo"
html_title = f"airflow-provider-regal {release}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
highlight_language = "text"
pygments_style = "default"
pygments_dark_style = "github-dark"
