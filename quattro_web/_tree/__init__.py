"""What is running right now: a snapshot of an app's tasks, as JSON, as a page, and in the log.

Nothing is kept for it: it is read from what the rest keeps anyway, at the time of the question.
`quattro_web.tasks` exports it. `snapshot` knows no app; `look` reads the requests and the runs.
"""
