"""Where the cache folder is."""

from pathlib import Path

from avt_jax.host.cache import cache_folder


def test_the_variables_in_their_order(monkeypatch):
    monkeypatch.setenv("AVT_CACHE", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/a/b")
    monkeypatch.setenv("AVT_CACHE", "")
    assert cache_folder() == Path("/c/avt_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/avt_jax")
