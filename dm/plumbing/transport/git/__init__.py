"""git: the files of one commit, without its history and without a git on this machine.

`fetcher` holds the plan of a fetch; `remote` reads the URI, `wire` speaks to servers (over `links` and `web_client`),
`wanted` chooses the commit, `pack` and `local` hold objects, `tree` and `checkout` make the folder.
Nothing that a repository says is run or obeyed: no hook, no filter, no attribute, no configuration.
"""
