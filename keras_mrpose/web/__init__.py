"""An export in a browser: a folder with one page that any static server can serve, and a server for it.

- `folder` writes it: the exported files, a reference case, and the page in `page/` (plain HTML, CSS and JavaScript).
- `library` is LiteRT.js, which runs the files there: its version, its files and their hashes.
- `server` serves such a folder.
"""
