"""Configuration text -> `Config` with places; kind -> plugin class -> plugin.

`config` reads and writes configuration files, `plugin` makes plugins from what they say, and `trial` makes them to see
whether they can be made. The other modules are theirs.
"""
