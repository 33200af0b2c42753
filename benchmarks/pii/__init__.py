"""How well personal data is found, and how fast, beside the recognisers of `presidio-analyzer` in the same run."""
