"""The settings of `cpex plugin` at the address that release 0.1 has for them; importing this reads nothing."""

from cpex.framework.settings import (
    PluginsCatalogSettings,
    PluginsRegistrySettings,
    get_catalog_settings,
    get_registry_settings,
)

__all__ = ["PluginsCatalogSettings", "PluginsRegistrySettings", "get_catalog_settings", "get_registry_settings"]
