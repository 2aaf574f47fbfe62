"""Report: what came of a study, as one HTML page (``page``), Markdown (``markdown``) or a table (``table``).

The road of a page: ``record`` turns the result into plain JSON and back, ``summary`` draws the conclusions,
``charts`` makes SVG (cleaned by ``svg``), ``sections`` holds the table ``SECTIONS``, ``page`` runs over it.
"""
