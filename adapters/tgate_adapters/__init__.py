"""Adapters for the backbones we know; each imports its backbone inside the verb that needs it."""
