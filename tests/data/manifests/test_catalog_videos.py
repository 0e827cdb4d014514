"""Files are found by the names that usual downloads have, exactly, and only below the folder."""

import pytest
from published import touch

from avt_jax.data.manifests.catalog.annotations import Row
from avt_jax.data.manifests.catalog.videos import Found, choose, index_videos, match_videos
from avt_jax.errors import UserError

ID = "-_abc-DEF_0"


def row(video_id=ID, start_sec=12.0, end_sec=22.0, clip_name=""):
    return Row("x.csv", 1, video_id, clip_name, start_sec, end_sec, "train", ("dog",), (-1,))


def match(rows, *paths, **options):
    found, unmatched = match_videos(rows, paths, **options)
    return [[(item.path, item.trimmed) for item in files] for files in found], unmatched


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_000012_000022.mp4",
        f"{ID}_000012.mp4",
        f"{ID}_12_22.mkv",
        f"{ID}_12.webm",
        f"{ID}_12.0_22.0.avi",
        f"{ID}_12000_22000.MP4",
        f"playing guitar/{ID}_000012_000022.mp4",
        f"train/deep/er/{ID}_12.MOV",
    ],
)
def test_names_of_clips(name):
    assert match([row()], name) == ([[(name, True)]], [])


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_000013_000023.mp4",  # another cut of the video
        f"{ID}_000012_000023.mp4",
        f"{ID}_000120.mp4",
        f"{ID}0.mp4",  # ids that only begin or end alike
        f"x{ID}.mp4",
        f"x{ID}_000012.mp4",
        f"{ID[1:]}_000012.mp4",
        f"{ID.lower()}.mp4",
        f"{ID}_.mp4",
        f"{ID}_12_22_.mp4",
        f"{ID}_١٢.mp4",  # digits, but not those that a program writes
        f"{ID}.f137.mp4",
        "_12.mp4",
    ],
)
def test_other_names_belong_to_no_row(name):
    assert match([row()], name) == ([[]], [name])


def test_a_whole_video_serves_all_its_clips():
    rows = [row(), row(start_sec=40.0, end_sec=50.0), row(video_id="another_id_")]
    found, unmatched = match(rows, f"a/{ID}.mp4")
    assert found == [[(f"a/{ID}.mp4", False)], [(f"a/{ID}.mp4", False)], []] and not unmatched


def test_files_that_the_user_calls_trimmed():
    assert match([row()], f"{ID}.mp4", trimmed=True) == ([[(f"{ID}.mp4", True)]], [])
    rows = [row(), row(start_sec=40.0, end_sec=50.0)]
    assert match(rows, f"{ID}.mp4", trimmed=True) == ([[], []], [f"{ID}.mp4"])


def test_an_id_that_looks_like_a_start_time():
    ids = [row("abcd_000012"), row("abcd")]
    found, _ = match(ids, "abcd_000012.mp4", "abcd_000012_000012.mp4", "abcd_12_22.mp4")
    assert found == [
        [("abcd_000012.mp4", False), ("abcd_000012_000012.mp4", True)],
        [("abcd_12_22.mp4", True)],
    ]


@pytest.mark.parametrize(
    "name", ["P01/P01_101.MP4", "P01/videos/P01_101.MP4", "P01_101.mp4", "EPIC/train/P01_101.mkv"]
)
def test_epic_videos(name):
    rows = [row("P01_101", 0.14, 3.37, "P01_101_0"), row("P01_10", 1.0, 2.0, "P01_10_0")]
    assert match(rows, name) == ([[(name, False)], []], [])


def test_epic_clips_cut_by_narration():
    rows = [row("P01_01", 0.14, 3.37, "P01_01_0"), row("P01_01", 4.0, 5.0, "P01_01_1")]
    assert match(rows, "P01_01_1.mp4") == ([[], [("P01_01_1.mp4", True)]], [])


def test_choice_among_several(tmp_path):
    names = [f"{ID}.mp4", f"{ID}_12.webm", f"{ID}_12.mp4", f"b/{ID}_12.mp4", f"{ID}_12_22.mp4"]
    touch(tmp_path, *names)
    (tmp_path / f"{ID}_12.mp4").write_bytes(b"")
    (files,), _ = match_videos([row()], names)
    assert len(files) == 5
    order = []
    while files:
        order.append(choose(files, tmp_path).path)
        files = [item for item in files if item.path != order[-1]]
    assert order == [
        f"{ID}_12_22.mp4", f"b/{ID}_12.mp4", f"{ID}_12.webm", f"{ID}.mp4", f"{ID}_12.mp4"
    ]  # fmt: skip
    assert choose([Found("gone.mp4", True)], tmp_path).path == "gone.mp4"


def test_listing(tmp_path):
    touch(tmp_path, "b/2.MP4", "a/1.mkv", "3.webm", "a/notes.txt", ".hidden/4.mp4", "a/.5.mp4",
          "a/6.mp4.part", "é.avi")  # fmt: skip
    (tmp_path / "folder.mp4").mkdir()
    folder = index_videos(tmp_path)
    assert folder.paths == ("3.webm", "a/1.mkv", "b/2.MP4", "é.avi")
    assert not folder.unusable and not folder.num_links
    with pytest.raises(UserError, match="no folder at"):
        index_videos(tmp_path / "none")


def test_names_that_a_manifest_cannot_hold(tmp_path):
    touch(tmp_path, "line\nbreak.mp4", " x/1.mp4", "fine.mp4")
    (tmp_path / b"\xff.mp4".decode("utf-8", "surrogateescape")).write_text("x")
    folder = index_videos(tmp_path)
    assert folder.paths == (" x/1.mp4", "fine.mp4", "line\nbreak.mp4")
    assert folder.unusable == ("\udcff.mp4",)


def test_links_to_folders_are_entered_on_request_only_and_never_in_circles(tmp_path):
    outside = touch(tmp_path / "outside", "secret.mp4", "deep/other.mp4", "notes.txt")
    inside = touch(tmp_path / "in", "a/1.mp4")
    (inside / "a" / "circle").symlink_to(inside)
    (inside / "self").symlink_to(inside / "self")
    (inside / "gone.mp4").symlink_to(inside / "nothing")
    (inside / "z").symlink_to(outside)
    (inside / "file.mp4").symlink_to(outside / "secret.mp4")
    (inside / "text.txt").symlink_to(outside / "notes.txt")
    folder = index_videos(inside)
    assert folder.paths == ("a/1.mp4", "file.mp4") and folder.num_links == 2
    folder = index_videos(inside, follow_links=True)
    assert folder.paths == ("a/1.mp4", "file.mp4", "z/deep/other.mp4", "z/secret.mp4")
    assert folder.num_links == 0
    (tmp_path / "link").symlink_to(inside)
    assert index_videos(tmp_path / "link").paths == ("a/1.mp4", "file.mp4")
