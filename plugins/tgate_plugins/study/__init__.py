"""A study: many methods on many models, measured alike, resumable, with a report."""
