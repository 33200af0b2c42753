"""Plugins that come with the framework, one folder per concern, written against its public names only.

They are registered under short names (`security.TokenBudgetPlugin`), which a configuration gives as `kind`.
"""
