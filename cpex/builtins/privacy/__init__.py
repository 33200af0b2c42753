"""Plugins that keep personal data from where it does not belong."""
