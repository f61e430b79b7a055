"""A page to look at: thumbnails in a grid, filters, and a large view with what was found in its classes' colours.

`page` writes it: `index.html`, which holds styles, scripts and a row for each item and opens from a disk without any
server; `page/records/`, records in files that the page loads when it needs one; and, by `pictures`, a thumbnail, a
picture and what else a large view needs of each item, in files that are named by a digest of its name. `assets/` holds
the page's own code: `items.js` (rows, filters, order), `grid.js`, `view.js` (the large view), `flat.js` (images) and
`space.js` (boxes in space) draw what was found.
"""
