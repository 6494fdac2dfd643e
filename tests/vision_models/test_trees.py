import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_models.trees import flatten, keys_of, nested

pytestmark = pytest.mark.quick

NAMES = st.text("abc_123", min_size=1, max_size=4)
TREES = st.recursive(
    st.dictionaries(NAMES, st.integers(), min_size=1, max_size=4),
    lambda inner: st.dictionaries(NAMES, inner | st.integers(), min_size=1, max_size=4),
)


@given(TREES)
def test_there_and_back(tree):
    flat = flatten(tree)
    assert nested(flat) == tree
    assert list(flat.values()) == leaves_in_order(tree)


def leaves_in_order(tree):
    found = []
    for value in tree.values():
        found += leaves_in_order(value) if isinstance(value, dict) else [value]
    return found


@given(TREES)
def test_paths_are_those_of_jax(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    assert {"/".join(keys_of(path)): leaf for path, leaf in paths} == flatten(tree)


def test_fields_have_dots_and_empty_trees_leave_nothing():
    tree = {"data": {"augment": {"flip": True}, "size": (1, 2)}, "groups": {}}
    assert flatten(tree, ".") == {"data.augment.flip": True, "data.size": (1, 2)}
