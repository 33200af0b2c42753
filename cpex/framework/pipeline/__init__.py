"""The engine: a plan per hook, and the executor that walks it.

Its modules in the order of reading; each imports from those before it only, and a test holds that:

- `log`: where the lines of managers go
- `identity` `plan`: what is known at registration, compiled
- `trail` `tracing` `disabling` `groups` `stepping` `call`: the state of one call, and what it keeps of its plugins
- `acceptance` `answers` `failures` `decision`: what an answer or a failure does to the call, and how the call is told
- `turns` `relay` `serial` `concurrent`: plugins that the caller waits for, one after another or side by side
- `background` `redaction` `fire_and_forget` `observers`: what comes after the decision
- `single` `executor`: one handler by itself; one call from end to end
- `starting` `stopping`: a plugin's beginning and its end

`docs/design/engine.md` tells the ideas.
"""
