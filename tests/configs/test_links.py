"""Fields that follow others: an override of the one moves the other, in every config."""

import pytest
from absl import flags

from configs import command_line, common
from tests.configs.test_configs import ALL, get_config, value_of
from tests.conftest import ROOT

pytestmark = pytest.mark.quick

# Field -> those that move with it; no others do.
LINKS = {
    "batch_size": {"optimizer.learning_rate", "evaluation.batch_size"},
    "data.crop": {"model.image_size"},
    "model.image_size": {"data.crop"},
}


def values(config):
    return {field: value_of(config, field) for field in command_line.field_names(config)}


def another(value, kind):
    """A value of the same kind that is not `value`."""
    if kind is bool:
        return not value
    if kind is tuple:
        return (*(value or ()), (value or (1,))[-1])
    return f"{value}x" if kind is str else kind(2 * (value or 0) + 1)


@pytest.mark.parametrize("name, variant", ALL)
def test_overrides_move_what_follows_and_nothing_else(name, variant):
    before = values(get_config(name, variant))
    assert set(LINKS) <= set(before)
    for field in before:
        config = get_config(name, variant)
        *parents, leaf = field.split(".")
        node = value_of(config, ".".join(parents)) if parents else config
        node[leaf] = another(node[leaf], node.get_type(leaf))
        after = values(config)
        assert after[field] != before[field]
        moved = {other for other in before if after[other] != before[other]} - {field}
        assert moved == LINKS.get(field, set()), field


@pytest.mark.parametrize("name, variant", ALL)
def test_the_batch_size_scales_the_rate_on_the_command_line(name, variant, monkeypatch):
    monkeypatch.chdir(ROOT)
    source, written = f"--config=configs/{name}.py:{variant}".rstrip(":"), get_config(name, variant)
    for size in (1, 48):
        arguments = ["main.py", f"--config.batch_size={size}", source]
        config = command_line.parse(arguments, flags.FlagValues()).config
        rate = written.optimizer.learning_rate * size / written.batch_size
        assert config.optimizer.learning_rate == pytest.approx(rate, rel=1e-12)
        assert config.evaluation.batch_size == size


def test_rates_set_with_their_batch_size_stay_linked():
    config = common.base_config(batch_size=100, learning_rate=1.0)
    common.set_rate(config, 0.5, batch_size=10)
    assert (config.batch_size, config.optimizer.learning_rate) == (10, 0.5)
    config.batch_size = 30
    assert config.optimizer.learning_rate == pytest.approx(1.5)
