"""A real pipeline, live: build, test and hash a source tree by jobs, while workers fail and die.

```
_source  a copy of the tree        _plan   the jobs            steps    what they run
_crew    worker processes          _worker one of them         _story   what is told of it
_run     beginning to end          _promises                   what must have come true, judged by the records
```
"""

from ._promises import Promise, table_of
from ._run import Report, run
from ._story import LiveStory, PlainStory, SilentStory

__all__ = ["LiveStory", "PlainStory", "Promise", "Report", "SilentStory", "run", "table_of"]
