"""Archives: many clips judged by many processes, exactly once each.

`inputs` lists clips, `storage` brings each to this machine, `worker` and `child` judge it in a
limited process, `engine` and `cluster` run many of those, `dataset` and `ledger` keep the results,
`run` ties them together. Both engines judge with the same code.
"""
