"""The table of published errors against the configs and their docstrings."""

import importlib
import re

import pytest

from configs.papers import _DEFAULTS, PUBLISHED, published
from evaluation import PROTOCOLS

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name, variant", PUBLISHED, ids=str)
def test_is_of_the_config_and_in_its_docstring(name, variant):
    module, found = importlib.import_module(f"configs.{name}"), PUBLISHED[name, variant]
    config = module.get_config(variant)
    assert config.data.name == found.data
    said = {float(text) for text in re.findall(r"\d*\.?\d+", module.__doc__.replace("pct", " "))}
    assert {found.top1, found.top5} - {None} <= said
    assert found.views in PROTOCOLS


@pytest.mark.parametrize("name", _DEFAULTS)
def test_the_default_is_the_configs_own(name):
    module = importlib.import_module(f"configs.{name}")
    default = module.get_config().to_json_best_effort()
    assert default == module.get_config(_DEFAULTS[name]).to_json_best_effort()
    data = PUBLISHED[name, _DEFAULTS[name]].data
    assert published(name, "", data) == PUBLISHED[name, _DEFAULTS[name]]
    assert published(name, "", "digits") is None
