"""The service `dfd-edge serve`: pages for people, an API for programs, a queue between them.

`app` puts the parts together; `queue` hands what `store` keeps to the processes of `worker`.
"""
