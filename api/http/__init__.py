"""How a request becomes an answer: the table of routes, strict reading, problems, the door, the shell around all.

Reading order: `scopes`, `problems`, `names`, `shapes`, `reading`, `query`, `route`, `exchange`, `request`, `answer`,
`cursors`, `door`, `pipeline`, `shell`, `app`.
"""
