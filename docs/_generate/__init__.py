"""Tables of the docs that are made from the code, so that they cannot fall behind it.

A page asks for one inside a comment, and cog writes the answer below it::

    <!-- [[[cog
    from _generate import hook_table
    cog.out(hook_table())
    ]]] -->
    <!-- [[[end]]] -->

`make docs-generate` rewrites all pages, `make docs-check` fails where one is behind. A new page
needs its comment and a line in the nav of mkdocs.yml; a new table needs a function here.
"""

from _generate.commands import command_sections
from _generate.estimators import estimator_table
from _generate.hooks import hook_sections, hook_table
from _generate.policies import policy_sections, policy_table
from _generate.rules import rule_table
from _generate.scripts import script
from _generate.study import study_left_out, study_setting, study_tables

__all__ = [
    "command_sections",
    "estimator_table",
    "hook_sections",
    "hook_table",
    "policy_sections",
    "policy_table",
    "rule_table",
    "script",
    "study_left_out",
    "study_setting",
    "study_tables",
]
