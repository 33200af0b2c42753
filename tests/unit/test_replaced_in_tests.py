"""What tests of hosts replace in the managers' module by its dotted name has its effect.

The replacements here are what such tests put there: standing in for a file, an environment and a log is their point.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from support import call, deny, manager_of, plugin

from cpex.framework.errors import PluginLoadError
from cpex.framework.loader.config import ConfigLoader, plugin_locations
from cpex.framework.manager import PluginManager, TenantPluginManager
from cpex.framework.models.config import Config, PluginConfig

MODULE = "cpex.framework.manager"
TOOL = "tool_pre_invoke"
MISSING = Config(plugins=[PluginConfig(name="gone", kind="nobody.has.This", hooks=[TOOL])])


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    PluginManager.reset()
    yield
    PluginManager.reset()


@pytest.mark.parametrize("what", [f"{MODULE}.ConfigLoader.load_config", f"{MODULE}.ConfigLoader"])
def test_the_configuration_of_a_replaced_loader_is_the_managers(what: str) -> None:
    with patch(what) as replaced:
        load = replaced if what.endswith("load_config") else replaced.load_config
        load.return_value = MISSING
        assert PluginManager("no/such/file.yaml").config is MISSING
        assert TenantPluginManager("no/such/file.yaml").config is MISSING


@pytest.mark.parametrize("fatal", [True, False])
async def test_replaced_settings_say_whether_a_failed_start_is_fatal(fatal: bool) -> None:
    manager = TenantPluginManager(MISSING)
    with patch(f"{MODULE}.settings") as settings:
        settings.fail_on_plugin_error = fatal
        if fatal:
            with pytest.raises(PluginLoadError, match="Plugin initialization failed: gone"):
                await manager.initialize()
        else:
            await manager.initialize()
    assert manager.initialized is not fatal
    await manager.shutdown()


async def test_a_replaced_logger_gets_what_the_engine_logs_for_managers() -> None:
    own = logging.Logger("own")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    own.addHandler(handler)
    manager = manager_of(plugin(deny, mode="audit"))
    with patch(f"{MODULE}.logger", own):
        await call(manager)
    await call(manager)
    assert len(lines) == 1
    assert "raised violation" in lines[0]


async def test_a_configuration_that_was_read_tells_where_its_plugins_stand_as_long_as_it_lives(tmp_path: Path) -> None:
    file = tmp_path / "plugins.yaml"
    file.write_text("plugins:\n  - {name: gone, kind: nobody.has.This, hooks: [tool_pre_invoke]}\n")
    config = ConfigLoader.load_config(file)
    assert plugin_locations(config) == {"gone": f"{file}:2:5"}
    assert plugin_locations(config.model_copy()) == {}
    with pytest.raises(PluginLoadError, match=f"{file}:2:5"):
        await TenantPluginManager(str(file)).initialize()
    number = id(config)
    del config
    gc.collect()
    from cpex.framework.loader import config as module

    assert number not in module._locations
