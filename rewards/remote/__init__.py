"""Rewards that run elsewhere.

`ray_pool` scores on Ray workers, which `ray_session` starts; `process` scores with an external program over JSON lines
and is such a program itself, `json_subprocess` starts and ends it.
"""
