"""Which files were cut from one recording, guessed from their names.

`holiday_part1.mp4` and `holiday_part2.mp4` have a beginning in common, `clip_001.mp4` to
`clip_900.mp4` as well, but that is a number and no recording: how many share a beginning tells.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

# Ends of a name, without its extension, that tell parts of one recording apart.
_WORDS = (
    "clip", "part", "pt", "take", "seg", "segment", "scene", "shot", "chunk", "cut", "cam",
    "camera", "view", "angle", "rep", "trial", "version", "ver", "v",
)  # fmt: skip
_COPY = r"(?: ?\([0-9]+\)|[ _.-]+(?i:copy)[ _.-]*[0-9]*)"
_LANGUAGE = r"[_.-]+[A-Za-z]{2}(?:[_-][A-Z]{2})?"
_LETTER = r"(?<=[0-9])[ _.-]?[A-Za-z]"
_NUMBER = r"(?:[ _.-]+|(?<=[A-Za-z]))[0-9]+"
_TWO_NUMBERS = r"[ _.-]+[0-9]+[ _.-]+[0-9]+"
# A name ends where its extension begins.
_END = r"(?:\.[^./]*)?$"
_STEM_END = "[^ _./-]"

# What cameras and programs call a file: such a beginning names no recording.
_ANY = frozenset(
    "audio av avi camera capture cam clip dsc dscf dscn example file film frame gh gopr gp gx "
    "image img item mov movie mvi mp new no number person pxl rec record recording sample scene "
    "screen segment shot speaker subject take test train track untitled user val vid video wa "
    "whatsapp window".split()
)
# The folder of a file, if that is not the class's own.
_FOLDER = r"^([^/]+/(?:.+(?=/)|[^/]+$))"
_MAX_NAME = 512  # characters that are looked at
# Weak signs: this share of the files must lie in groups.
_WEAK_SHARE = 0.2
# More files than this, and more than half of a class, with one beginning are numbered, not grouped.
_MOST_TAKES = 5
# This share of the classes must keep three groups, one for each split, or all their files apart.
_DIVISIBLE_SHARE = 0.8
# What files in different folders have in common must be as long as this to be no accident.
_LEAST_KEY = 5
_DATE_DIGITS = 8


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How names look grouped.

    Attributes:
      pattern: regular expression that is found in every name: its one group reads the same in the
        names of a group. `avt manifest --group-by` takes it.
      num_files: names that share a group with another.
      groups: the names of the files of every group of several.
      example: two names of a group.
    """

    pattern: str
    num_files: int
    groups: tuple[tuple[str, ...], ...]
    example: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way of grouping names.

    Attributes:
      end: regular expression of what is cut off at the end of a name, less its extension; "" = its
        extension alone.
      copy: the same of what stands behind that; it may be missing.
      is_weak: such ends are often mere numbers.
      across_folders: a recording may have files in several folders.
      by_folder: the files of a folder are a group; nothing else counts.
    """

    end: str = ""
    copy: str = ""
    is_weak: bool = False
    across_folders: bool = False
    by_folder: bool = False

    def tail(self) -> str:
        """What stands behind the part that names of a group share; its last character is group 1.

        To search for this is several times quicker than for `pattern`, and it finds the same.
        """
        end = f"(?:{self.end})?" if self.end else ""
        return f"({_STEM_END}){end}{self.copy}{_END}"

    def pattern(self) -> str:
        """For whole paths; the part that names of a group share is group 1."""
        if self.by_folder:
            return _FOLDER
        start = "([^/]*?" if self.across_folders else "^(.*?"
        return start + self.tail().removeprefix("(")


def find_grouping(
    classes: Mapping[str, Collection[str]], *, folders: bool = False
) -> Grouping | None:
    """Guesses which files belong together.

    Args:
      classes: {path of a file, with slashes: the classes it has clips of}.
      folders: files of one folder below those of the classes may be a group as well.

    Returns:
      The way that puts most files into groups; None where names do not look grouped, or where
      grouping by them would leave classes that cannot be divided.
    """
    names = {name: found for name, found in classes.items() if len(name) <= _MAX_NAME}
    best: Grouping | None = None
    done: set[str] = set()
    stems: dict[str, list[str] | None] = {}
    for kind, way in _ways(names, folders):
        # Of numbers no more is cut off than needed.
        if kind in done:
            continue
        if way.tail() not in stems:
            stems[way.tail()] = _stems(names, way.tail())
        found = _judge(names, way, stems[way.tail()])
        if found is not None:
            done.add(kind)
            if best is None or found.num_files > best.num_files:
                best = found
    return best and dataclasses.replace(best, pattern=_simpler(best, list(names)))


def _ways(names: Collection[str], folders: bool) -> Iterator[tuple[str, _Way]]:
    """(kind, way), the likelier ones first; of each kind one way counts."""
    ends = [re.search(rf"{_STEM_END}[ _.-]+([A-Za-z]+)[ _.-]*[0-9]+{_END}", n) for n in names]
    words = sorted({found[1].casefold() for found in ends if found} & set(_WORDS))
    copy = f"{_COPY}?" if any(re.search(_COPY + _END, name) for name in names) else ""

    strong = {"language": _LANGUAGE}
    if words:
        strong = {"word": rf"[ _.-]+(?i:{'|'.join(words)})[ _.-]*[0-9]+", **strong}
    for kind, end in strong.items():
        yield kind, _Way(end, copy)
    if copy:
        yield "copy", _Way(_COPY)
    for kind, end in (("letter", _LETTER), ("number", _NUMBER), ("number", _TWO_NUMBERS)):
        yield kind, _Way(end, copy, is_weak=True)
    if folders:
        yield "folder", _Way(by_folder=True)
    for kind, end in strong.items():
        yield f"{kind} across folders", _Way(end, copy, across_folders=True)
    yield "same", _Way("", copy, is_weak=True, across_folders=True)


def _stems(names: Collection[str], tail: str) -> list[str] | None:
    """Of every name, less its folder, what stands before a tail; None where one has no such."""
    found = []
    search = re.compile(tail).search
    for name in names:
        base = name[name.rfind("/") + 1 :]
        match = search(base)
        if match is None:
            return None
        found.append(base[: match.end(1)])
    return found


def _simpler(grouping: Grouping, names: Collection[str]) -> str:
    """A pattern that is easier to read and groups the names in the same way, if there is one."""
    example = max(grouping.example, key=len)
    match = re.search(grouping.pattern, example)
    assert match is not None
    end = re.sub(r"\.[^./]*$", "", example[match.end(1) :])
    end = re.sub(r"\\([ -])", r"\1", re.escape(end))
    numbered = re.sub("[0-9]+", "[0-9]+", end)
    lettered = re.sub("[A-Za-z]+", lambda found: f"[A-Za-z]{{{len(found[0])}}}", end)
    lettered = lettered.replace("{1}", "")
    start = "(.+?)" if grouping.pattern.startswith("^") else "([^/]+?)"
    for one in (numbered, lettered):
        for simple in (rf"{start}{one}\.", rf"{start}(?:{one})?\.[^.]+$"):
            if _same_groups(grouping.pattern, simple, names):
                return simple
    return grouping.pattern


def _same_groups(one: str, two: str, names: Collection[str]) -> bool:
    keys = [(re.search(one, name), re.search(two, name)) for name in names]
    pairs = {(a[1], b[1]) for a, b in keys if a and b}
    is_found = all(a and b for a, b in keys)
    return is_found and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _key(name: str, stem: str, way: _Way) -> str:
    """What the names of a group have in common."""
    folder = name[: name.rfind("/") + 1]
    if way.by_folder:
        return folder[:-1] if folder.count("/") > 1 else name
    return stem if way.across_folders else folder + stem


def _judge(
    names: Mapping[str, Collection[str]], way: _Way, stems: Sequence[str] | None
) -> Grouping | None:
    """The grouping that a way makes, or None where it makes none that could be meant."""
    if stems is None:
        return None
    groups: dict[str, list[str]] = {}
    for name, stem in zip(names, stems, strict=True):
        groups.setdefault(_key(name, stem, way), []).append(name)
    sizes = collections.Counter(label for found in names.values() for label in found)
    labels = {_letters(label) for label in sizes}
    meant = [
        found
        for key, found in groups.items()
        if len(found) > 1 and _names_a_recording(key, found, names, sizes, labels, way)
    ]
    if way.across_folders and way.is_weak:
        meant = _without_numbered(groups, meant)
    num_files = sum(map(len, meant))
    least = _WEAK_SHARE * len(names) if way.is_weak and not way.across_folders else 2
    if not meant or num_files < least or not _is_divisible(groups, names, sizes):
        return None
    largest = meant[0]
    for found in meant:
        largest = found if len(found) > len(largest) else largest
    first, second = sorted(largest)[:2]
    return Grouping(way.pattern(), num_files, tuple(map(tuple, meant)), (first, second))


def _letters(text: str) -> str:
    return re.sub(r"[\W\d_]+", "", text).casefold()


def _names_a_recording(
    key: str,
    found: Collection[str],
    names: Mapping[str, Collection[str]],
    sizes: Mapping[str, int],
    labels: Collection[str],
    way: _Way,
) -> bool:
    if not any(re.search(way.end + (way.copy if way.end else "") + _END, name) for name in found):
        return False
    base = key.rpartition("/")[2]
    letters = _letters(base)
    if not re.search(r"\d", base) and (letters in labels or letters in _ANY or not letters):
        return False
    if way.across_folders:
        apart = len({name.rpartition("/")[0] for name in found}) > 1
        has_date = len(re.findall(r"\d", base)) >= _DATE_DIGITS
        is_own = len(base) >= _LEAST_KEY and letters not in labels and letters not in _ANY
        return apart and bool(letters) and (is_own or has_date)
    if way.is_weak and len(found) > _MOST_TAKES:
        of_class = collections.Counter(label for name in found for label in names[name])
        return not any(2 * count > sizes[label] for label, count in of_class.items())
    return True


def _without_numbered(
    groups: Mapping[str, Collection[str]], meant: list[list[str]]
) -> list[list[str]]:
    """Leaves out names such as walk_017 that every folder has as it counts its files."""
    key_of = {name: key for key, found in groups.items() for name in found}
    stems = collections.Counter(re.sub(r"[ _.-]*[0-9]+$", "", key) for key in groups)
    return [
        found
        for found in meant
        for key in [key_of[found[0]]]
        if not key[-1].isdigit() or stems[re.sub(r"[ _.-]*[0-9]+$", "", key)] <= _MOST_TAKES
    ]


def _is_divisible(
    groups: Mapping[str, Collection[str]],
    names: Mapping[str, Collection[str]],
    sizes: Mapping[str, int],
) -> bool:
    """Whether most classes have groups enough for all splits."""
    having: collections.Counter[str] = collections.Counter()
    for found in groups.values():
        having.update({label for name in found for label in names[name]})
    divisible = sum(having[label] >= min(3, count) for label, count in sizes.items())
    return divisible >= _DIVISIBLE_SHARE * len(sizes)
