"""Known data sets: from the annotation files their authors publish to a manifest.

`entries` says what is particular to each of them, as data; everything else is written once:
`annotations` reads the files, `class_names` orders the classes, `videos` finds the clips' files,
`build` joins them and `report` counts.
"""
