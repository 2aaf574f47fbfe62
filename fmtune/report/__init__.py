"""Report: what came of a study, as one HTML page (``page``), Markdown (``markdown``) or a table (``table``).

The road of a page: ``record`` turns the result into plain JSON and back (``packing`` makes that small), ``summary``
and ``worth`` draw the conclusions, ``charts`` draws in one ``style`` (cleaned by ``svg``), ``sections`` holds the
table ``SECTIONS``, ``page`` runs over it.  ``compare`` makes one page of several studies.
"""
