"""Pages for browsers: plain HTML made here, one style sheet, and no script that a page cannot do without."""
