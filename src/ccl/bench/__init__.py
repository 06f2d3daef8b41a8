"""What a machine gives a config of `ccl fit`: real steps on made-up latents, timed by part, beside `ccl plan`'s count.

`subject` turns the config into one that needs no weights and no data, `worker` runs it in a process of its own, `timed`
looks on, `result` is what is kept and printed.
"""
