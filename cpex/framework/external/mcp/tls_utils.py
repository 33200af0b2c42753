"""TLS towards plugin servers over MCP.

Source: docs/reference/external.md, "TLS".
"""

from __future__ import annotations

import logging
import ssl

from cpex.framework.errors import PluginError
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.models.tls import MCPClientTLSConfig

__all__ = ["create_ssl_context"]

logger = logging.getLogger(__name__)


def create_ssl_context(tls_config: MCPClientTLSConfig, plugin_name: str) -> ssl.SSLContext:
    """What a client of a plugin server checks, and what it shows of itself. TLS 1.2 at the least.

    Raises:
        PluginError: A file cannot be read or is not what it should be; its text names the plugin, no content.
    """
    try:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not tls_config.verify:
            logger.warning("Certificate checks are off for plugin %s; anybody can answer in its place", plugin_name)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            if tls_config.ca_bundle:
                context.load_verify_locations(cafile=tls_config.ca_bundle)
            if not tls_config.check_hostname:
                logger.warning("Host names of certificates are not checked for plugin %s", plugin_name)
                context.check_hostname = False
        if tls_config.certfile:
            # Without a password of ours, OpenSSL would ask for one on the terminal.
            password = tls_config.keyfile_password or ""
            context.load_cert_chain(tls_config.certfile, tls_config.keyfile, lambda: password)
    # Whatever the platform's library makes of the files.
    except Exception as error:
        text = (
            f"Failed to configure SSL context for plugin {plugin_name}: {error}; check the files of its `tls` section"
        )
        model = PluginErrorModel(message=text, plugin_name=plugin_name, code="external_tls")
        raise PluginError(model) from error
    return context
