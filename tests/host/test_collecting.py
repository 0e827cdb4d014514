"""Collecting is put off only where a command has asked for it."""

import gc

import pytest

from avt_jax.host import collecting


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    collecting.resume()
    gc.unfreeze()
    gc.enable()


def test_held_and_resumed():
    collecting.hold()
    assert not gc.isenabled()
    before = gc.get_freeze_count()
    collecting.resume()
    assert gc.isenabled() and gc.get_freeze_count() > before


def test_a_program_s_own_choice_stays():
    gc.disable()
    frozen = gc.get_freeze_count()
    collecting.resume()
    assert not gc.isenabled() and gc.get_freeze_count() == frozen
    gc.enable()
    collecting.resume()
    assert gc.isenabled() and gc.get_freeze_count() == frozen


def test_put_off_for_a_while_and_as_it_was_afterwards():
    with pytest.raises(KeyError), collecting.put_off():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    # Within a command that starts, it is not switched on again.
    collecting.hold()
    with collecting.put_off():
        pass
    assert not gc.isenabled()
