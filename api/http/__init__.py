"""How a request becomes an answer: the table of routes, strict reading, problems, the door, the shell around all.

Reading order: `scopes`, `names`, `problems`, `reading`, `query`, `route`, `request`, `answer`, `cursors`, `exchange`,
`door`, `pipeline`, `shell`, `app`.
"""
