"""The page that shows what a run came to, and the page that compares several: plain HTML that needs no network."""
