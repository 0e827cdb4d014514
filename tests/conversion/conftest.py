"""Weights that several files of tests start from."""

import official
import pytest
from tiny_weights import AST_TINY, UNIFORMER_TINY, converted


@pytest.fixture(scope="session")
def ast_weights():
    return converted("ast", AST_TINY, official.under(official.golden("ast_tiny_a"), "sd/"))


@pytest.fixture(scope="session")
def uniformer_weights():
    golden = official.golden("uniformer_tiny_a")
    return converted("uniformer", UNIFORMER_TINY, official.under(golden, "sd/"))
