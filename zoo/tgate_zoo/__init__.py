"""The project's own trained models, with the recipes that made them."""

from __future__ import annotations
