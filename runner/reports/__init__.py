"""What a run leaves for people and for their tools at its end: JUnit XML, SARIF, and one page."""
