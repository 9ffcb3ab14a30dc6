"""`report.html`: a study's folder as one page that needs nothing but a browser.

::

    from tgate_plugins.study.report import render

    render(Path("out/demo"))  # writes out/demo/report.html

The page asks nobody: pictures, charts and the code that draws them are inside it.
"""

from __future__ import annotations

from tgate_plugins.study.report.page import render

__all__ = ["render"]
