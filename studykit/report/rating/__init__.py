"""The page on which people choose between two completions, for `studykit rate`.

To read, in this order: `page` (the document and what it holds), `session` (a study's pages written, answers read back).
`rating.css` and `js/rating.js` are its style and its script.
"""
